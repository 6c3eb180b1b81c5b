#!/bin/bash
# test_api_guide.sh BIN SOURCES - the commands of docs/api.md, as they stand, against a server with the demo model.
#
# If this breaks, what a newcomer copies first does not work.
set -euo pipefail
bin=$1 sources=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/llmd-api-XXXXXX")
llmd=
finish() {
    local code=$?
    trap - EXIT
    [[ -z $llmd ]] || kill "$llmd" 2>/dev/null || true
    wait
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 1' INT TERM

"$bin/llmd" --model "$sources/models/stories-demo" --host 127.0.0.1 --port 0 --runtime-dir "$work/run" \
    --log-format text 2>"$work/llmd.log" &
llmd=$!
"$bin/llmctl" --runtime-dir "$work/run" wait --timeout 60 >/dev/null 2>&1
URL=http://$(sed -n 's/.*event=ready model=.* listen=\([^ ]*\).*/\1/p' "$work/llmd.log" | head -1)
export URL

# A command a file: indented lines, up to the next that are not.
awk -v out="$work/command" '/^    /{ if (!in_block) n++; in_block = 1; print substr($0, 5) > (out n) } !/^    /{ in_block = 0 }' \
    "$sources/docs/api.md"
n=0
for ((i = 1; ; i++)); do
    [[ -e $work/command$i ]] || break
    n=$((n + 1))
    if ! bash -e "$work/command$i" >"$work/answer" 2>"$work/error" || [[ ! -s $work/answer ]]; then
        echo "FAILED:"
        cat "$work/command$i" "$work/error" "$work/answer"
        exit 1
    fi
    if grep -qE '"error": ?[{"]' "$work/answer"; then
        echo "FAILED, an error within the answer:"
        cat "$work/command$i" "$work/answer"
        exit 1
    fi
done
[[ $n -ge 15 ]] || { echo "FAILED: only $n commands in docs/api.md"; exit 1; }
echo "$n commands answered"
