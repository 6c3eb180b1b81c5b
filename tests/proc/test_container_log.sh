#!/bin/sh
# test_container_log.sh BIN - where llm-init is process 1, every line of every process is one JSON object.
#
# If this breaks, a log service takes a container's lines for plain text, and nobody finds a request by its id.
# llmd is given a model that is not there: llm-init, llmd and the worker each say so, and end.
#
# Exit code 77: no namespaces here.
bin=$1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
unshare --mount --pid --fork --mount-proc true 2>/dev/null || exit 77

unshare --mount --pid --fork --mount-proc \
    "$bin/llm-init" -- "$bin/llmd" --model /nowhere --runtime-dir "$folder/run" --port 0 2>"$folder/log"
for process in llm-init llmd llm-worker; do
    grep -q "\"process\":\"$process\"" "$folder/log" || { echo "$process says nothing:" && cat "$folder/log" && exit 1; }
done
if grep -v '^{"timestamp":"[^"]*","level":"[a-z]*","process":"[^"]*",.*"message":".*"}$' "$folder/log"; then
    echo 'these lines are no JSON objects'
    exit 1
fi
