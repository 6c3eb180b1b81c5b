#!/bin/bash
# run.sh MODEL PORT - what `make run` does: build, start llmd, wait, tell a story, serve until Ctrl-C.
#
# Ctrl-C goes to every process of the terminal's foreground group.  make must not be one of them, or it
# would report an interrupt where everything ended as it should; nor llmd, which is told by SIGTERM.  So
# on a terminal this script runs in a group of its own, and llmd in a session of its own.  Should make or
# the script be killed, the kernel sends the next one SIGTERM (setpriv --pdeathsig).
#
# llmd runs below llm-init, so that it too may be killed and comes back; "llmd" below means the two.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ ${1:-} != --in-group ]]; then
    if [[ -t 0 ]]; then
        # shellcheck disable=SC2016 # expanded by that bash
        exec setpriv --pdeathsig TERM \
            bash -m -c 'setpriv --pdeathsig TERM "$0" --in-group "$@"; exit $?' "$0" "$@"
    fi
    exec setpriv --pdeathsig TERM "$0" --in-group "$@"
fi
model=${2:-models/stories-demo}
port=${3:-8080}
bin=build/release/bin
llmd_pid=
stopping=

stop() {
    stopping=yes
    [[ -z $llmd_pid ]] || kill -TERM "$llmd_pid" 2>/dev/null || true
}

# llmd's exit code, once it has really ended: a trapped signal ends `wait` early.
reap() {
    local code=0 again=0
    wait "$llmd_pid" || code=$?
    while kill -0 "$llmd_pid" 2>/dev/null; do
        code=0
        wait "$llmd_pid" || code=$?
    done
    wait "$llmd_pid" || again=$? # the signal may have come at the very end; bash still knows
    [[ $again -eq 127 ]] || code=$again
    return "$code"
}

finish() {
    local code=$1
    reap && [[ $code -eq 0 ]] || code=$?
    rm -rf "$runtime"
    if [[ -n $stopping && $code -eq 0 ]]; then
        echo "llmd has ended."
    fi
    exit "$code"
}

if [[ ! -f $model && ! -f $model/config.json ]] && ! compgen -G "$model/*.gguf" >/dev/null; then
    echo "make run: '$model' is no model: neither a GGUF file nor a folder with one or with a config.json" >&2
    exit 1
fi
scripts/packages.sh build
[[ -x $bin/llmd ]] || echo "Building llmd (release) ..."
# A first look at it need not wait for minutes until kernels are compiled that this machine has no GPU for.
options=()
[[ -f build/release/build.ninja || -e /dev/nvidiactl ]] || options=(-DLLMD_FATBINS=OFF)
scripts/build.sh release programs "${options[@]}"

runtime=$(mktemp -d "${TMPDIR:-/tmp}/llmd-run-XXXXXX")
trap stop INT TERM HUP
LLMD_LOG_LEVEL=${LLMD_LOG_LEVEL:-warning} setsid setpriv --pdeathsig TERM \
    "$bin/llm-init" -- "$bin/llmd" --host 127.0.0.1 --port "$port" --model "$model" --runtime-dir "$runtime" \
    </dev/null &
llmd_pid=$!

ctl() {
    "$bin/llmctl" --runtime-dir "$runtime" "$@"
}

if ! ctl wait --pid "$llmd_pid"; then
    failed=1
    [[ -z $stopping ]] || failed=0
    stop
    finish "$failed"
fi

address=$(ctl status --json | sed -n 's/.*"listen":\["\([^"]*\)".*/\1/p')
name=$(ctl status --json | sed -n 's/.*"served_model_name":"\([^"]*\)".*/\1/p')
if [[ -f build/release/web/dist/assets/chat.js ]]; then
    pages="In a browser: http://$address/ to chat, http://$address/ui/status to watch it, http://$address/docs for the API."
else
    pages="There is no chat page in this build: npm with node 18 or newer makes it (Debian: nodejs npm)."
fi
cat <<END

Serving $name at http://$address

$pages

Try in another terminal:

  curl http://$address/generate -H 'Content-Type: application/json' -d '{"inputs": "Once upon a time", "parameters": {"max_new_tokens": 60}}'

  curl -N http://$address/v1/completions -H 'Content-Type: application/json' -d '{"model": "$name", "prompt": "The little dog", "max_tokens": 60, "stream": true}'

  curl http://$address/v1/chat/completions -H 'Content-Type: application/json' -d '{"model": "$name", "messages": [{"role": "user", "content": "Tell me a story about a cat."}]}'

  $bin/llmctl --runtime-dir $runtime status

A story:

END
if [[ -z $stopping ]]; then
    ctl generate "Once upon a time" --max-tokens 160 --temperature 0.7 --seed 7 --stats || true
fi
[[ -n $stopping ]] || printf '\nServing until Ctrl-C.\n'
finish 0
