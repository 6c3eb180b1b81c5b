#!/bin/bash
# fuzz.sh SECONDS - run every fuzz target for so long with clang's libFuzzer and AddressSanitizer.
#
# What a run discovers is kept in build/fuzz/corpus/NAME and used by the next one; an input that breaks
# something is written to build/fuzz/found and named in the output.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
scripts/packages.sh fuzz
cmake -S . -B build/fuzz -G Ninja -DCMAKE_C_COMPILER=clang-14 -DCMAKE_BUILD_TYPE=Debug \
    -DCMAKE_C_FLAGS_DEBUG='-O1 -g' >/dev/null
mapfile -t targets < <(ctest --test-dir build/fuzz -N -L fuzz | sed -n 's/.*Test *#[0-9]*: //p')
ninja -C build/fuzz --quiet "${targets[@]}"

mkdir -p build/fuzz/found
code=0
for target in "${targets[@]}"; do
    corpus=build/fuzz/corpus/$target
    seeds=tests/fuzz/seeds/$target
    mkdir -p "$corpus"
    folders=("$corpus")
    [[ ! -d $seeds ]] || folders+=("$seeds")
    echo "== $target"
    "build/fuzz/bin/$target" -max_total_time="$seconds" -timeout=10 -print_final_stats=1 \
        -artifact_prefix="build/fuzz/found/$target-" "${folders[@]}" 2>&1 |
        grep -E 'ERROR|SUMMARY|Test unit|stat::(number_of_executed_units|average_exec)' ||
        true
    [[ ${PIPESTATUS[0]} -eq 0 ]] || code=1
done
exit "$code"
