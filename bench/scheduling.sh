#!/bin/sh
# scheduling.sh - bench-scheduling with a model whose context is long enough.
#
#   bench/scheduling.sh BUILD_DIR [MODEL_DIR [ARGUMENTS of bench-scheduling]]
#
# Without MODEL_DIR: the demo model, told that it takes 8,192 tokens.  What it says there is nonsense, what it
# computes is the same.  Writes bench/scheduling.csv.
set -eu
here=$(dirname "$0")
build=$1
model=${2:-}
[ $# -gt 2 ] && shift 2 || shift $#
dir=
if [ -z "$model" ]; then
    dir=$(mktemp -d)
    trap 'rm -r "$dir"' EXIT
    for f in "$here"/../models/stories-demo/*; do
        ln -s "$(realpath "$f")" "$dir/"
    done
    rm "$dir/config.json"
    sed 's/"max_position_embeddings": *[0-9]*/"max_position_embeddings": 8192/' \
        "$here/../models/stories-demo/config.json" > "$dir/config.json"
    model=$dir
fi
"$build/bin/bench-scheduling" "$model" "$@" | tee "$here/scheduling.csv"
