#!/bin/sh
# test_llmctl_real.sh - llmctl against a real server that serves a model which llmctl made smaller.
#
#   test_llmctl_real.sh BIN_DIR SOURCE_DIR
#
# What would break in production: a quantised file that llmd refuses or answers nonsense with, a support bundle
# with a key or a prompt in it, logs -f that stops when llmd is replaced.
set -eu
bin=$1
source=$2
dir=$(mktemp -d)
run=$dir/run
init=''
stop() {
    if [ -n "$init" ]; then
        kill "$init" 2>/dev/null || true
        wait "$init" 2>/dev/null || true
    fi
    rm -rf "$dir"
}
trap stop EXIT
failed=0
fail() {
    echo "FAILED $*"
    failed=1
}
ctl() {
    "$bin/llmctl" --runtime-dir "$run" "$@"
}

# ---- made smaller ----
"$bin/llmctl" model quantize "$source/models/stories-demo" "$dir/demo.gguf" --type q8_0 >"$dir/made" ||
    fail "model quantize"
grep -q '^size .*3.6 MiB, was 6.6 MiB' "$dir/made" || fail "model quantize says: $(cat "$dir/made")"
"$bin/llmctl" model verify "$dir/demo.gguf" >/dev/null || fail "model verify"

# ---- stopped: nothing half written is left ----
"$bin/llm-worker" model quantize "$source/models/stories-demo" "$dir/stopped.gguf" q4_0 >"$dir/progress" 2>&1 &
worker=$!
i=0
until [ -s "$dir/stopped.gguf.part.gguf" ] || [ -e "$dir/stopped.gguf" ] || [ $i -ge 300 ]; do
    sleep 0.02
    i=$((i + 1))
done
if kill -TERM $worker 2>/dev/null; then
    wait $worker && [ ! -e "$dir/stopped.gguf" ] && fail "quantize was not stopped, and made nothing"
fi
[ ! -e "$dir/stopped.gguf.part.gguf" ] || fail "a half written file is left"

key=sk-verysecretkey0123456789
prompt='Once upon a time xyzzyplugh'
LLMD_API_KEY=$key "$bin/llm-init" "$bin/llmd" --model "$dir/demo.gguf" --port 0 --runtime-dir "$run" \
    --kv-cache-bytes 16M >"$dir/log" 2>&1 &
init=$!
ctl wait --timeout 60 --quiet || fail "the server does not start: $(tail -5 "$dir/log")"

# ---- the same likeliest continuation as the source's for a while ----
export LLMD_API_KEY=$key
text=$(ctl generate 'Once upon a time' --temperature 0 --max-tokens 12 --raw) || fail "generate"
wanted=$(sed -n 's/.*"text": "\(.*\)".*/\1/p' "$source/models/stories-demo/golden.json" | head -1)
case $text in
', there was a little'*) ;;
*) fail "the smaller model says '$text' (golden: $wanted)" ;;
esac

# ---- logs -f, through the death of llmd ----
"$bin/llmctl" --runtime-dir "$run" logs -f -n 0 >"$dir/followed" 2>"$dir/followed.err" &
follower=$!
ctl generate "$prompt" --max-tokens 4 --raw >/dev/null || fail "generate"
ctl restart llmd >/dev/null || fail "restart llmd"
i=0
until grep -q 'llmd: ' "$dir/followed" || [ $i -ge 300 ]; do
    sleep 0.1
    i=$((i + 1))
done
grep -q 'llmd: ' "$dir/followed" || fail "logs -f shows nothing of the new llmd"
kill -TERM $follower
wait $follower || fail "logs -f does not end well"
ctl wait --timeout 60 --quiet || fail "no server after restart llmd"

# ---- bench, requests ----
ctl bench --quiet -n 8 -c 4 -o 8 --input-tokens 8 --json >"$dir/bench" || fail "bench"
grep -q '"completed":8,' "$dir/bench" || fail "bench says: $(cat "$dir/bench")"
ctl requests --sort age --json | grep -q '^\[' || fail "requests"

# ---- the bundle ----
ctl support-bundle -o "$dir/bundle.tar.gz" >"$dir/holds" || fail "support-bundle"
[ "$(stat -c %a "$dir/bundle.tar.gz")" = 600 ] || fail "the bundle is for others to read"
mkdir "$dir/bundle"
tar -xzf "$dir/bundle.tar.gz" -C "$dir/bundle"
for name in status.json config.json logs.json doctor.json metrics.txt model.json version.txt README.txt; do
    [ -s "$dir"/bundle/*/$name ] || fail "the bundle has no $name"
    grep -q "^$name" "$dir/holds" || fail "$name is not in the list"
done
grep -q 'llmd_requests' "$dir"/bundle/*/metrics.txt || fail "the metrics are none"
if grep -rl "$key" "$dir/bundle"; then fail "the bundle has the API key"; fi
if grep -rlE 'xyzzyplugh|HOME=|PATH=' "$dir/bundle"; then fail "the bundle has a prompt or an environment"; fi

# ---- without a server ----
"$bin/llmctl" --runtime-dir "$dir/nowhere" support-bundle -o "$dir/none.tar.gz" --json | grep -q '"name":"doctor.json"' ||
    fail "support-bundle without a server"
code=0
"$bin/llmctl" --runtime-dir "$dir/nowhere" doctor --model "$dir/made" >"$dir/doctor" || code=$?
[ $code = 1 ] || fail "doctor: exit code $code for a model that is none"
grep -q '^fail  model ' "$dir/doctor" || fail "doctor says: $(cat "$dir/doctor")"
exit $failed
