#!/bin/sh
# run.sh - what each number format costs: our own formats against 16 bit, and the types of GGUF, ours and
# llama.cpp's, against the same numbers without any further rounding.  Writes own.csv and gguf.csv beside it.
#
# LLAMACPP_LIBRARY names the folder of llama.cpp's library; bench/cpu_vs_llamacpp gets it.
set -eu
cd "$(dirname "$0")/../.."

bin=${BIN:-build/release/bin}
library=${LLAMACPP_LIBRARY:-bench/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64}
model=models/stories-demo
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT

"$bin/bench-quality" --csv bench/quality/own.csv \
    bfloat16=llmd:$model int8=llmd:$model:int8 int4=llmd:$model:int4 kv_int8=llmd:$model::int8 2>/dev/null

# Alike as the two are, 2,139 positions do not tell which is nearer.
awk -v orders=15 -f bench/quality/reorder.awk bench/quality/heldout.txt >"$files/text"
"$bin/bench-gguf-types" "$library" $model "$files" >/dev/null 2>&1
: >bench/quality/gguf.csv
for file in "$files"/*.f32.gguf; do
    type=$(basename "$file" .f32.gguf)
    "$bin/bench-quality" --library "$library" --text "$files/text" --csv "$files/one.csv" "$type=llmd:$file" \
        "$type-llmd=llmd:$files/$type.gguf" "$type-llamacpp=llama.cpp:$files/$type.gguf" 2>/dev/null
    if [ -s bench/quality/gguf.csv ]; then
        tail -n +2 "$files/one.csv" >>bench/quality/gguf.csv
    else
        cat "$files/one.csv" >bench/quality/gguf.csv
    fi
done
