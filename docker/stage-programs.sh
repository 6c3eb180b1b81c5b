#!/bin/bash
# stage-programs.sh BIN OUT - lay out the programs of a release build for the images: OUT/bin without symbols,
# OUT/debug as they were built.
set -euo pipefail

bin=$1 out=$2
mkdir -p "$out/bin" "$out/debug"
for program in llm-init llmd llm-gateway llm-worker llmctl; do
    install -m 755 "$bin/$program" "$out/debug/$program"
    strip -o "$out/bin/$program" "$bin/$program"
done
