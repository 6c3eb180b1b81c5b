#!/bin/bash
# gpu-kernel-table.sh - the table of gpu-worker/cuda/kernels/README.md, from the release build and its tests.
#
# Registers, spills and shared memory are the assembler's, errors those that the kernels' tests print, targets those of
# roofline.csv.  Wants nvcc, and `scripts/build.sh release all` done.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nvcc=$(sed -n 's/^LLMD_NVCC:[A-Z]*=//p' build/release/CMakeCache.txt)
# What is beyond its budget is said, and in the table all the same.
tests/cuda/check-compiled.sh build/release/gpu-worker/cuda "$nvcc" >"$work/compiled" ||
    grep -v '^|' "$work/compiled" >&2
ctest --preset release -L kernels -V | sed -n 's/^[0-9]*: L1 /L1 /p' >"$work/errors"

awk -v roofline=gpu-worker/cuda/kernels/roofline.csv '
    function variant_of(name) { return index(name, ".") ? substr(name, index(name, ".") + 1) : "" }
    BEGIN {
        while ((getline line < roofline) > 0) {
            split(line, f, ",")
            if (!(f[1] in target) || f[5] + 0 > target[f[1]] + 0) target[f[1]] = f[5]
        }
    }
    /^L1 / { # L1 kernel[.variant] error E limit L
        name = $2; sub(/\..*/, "", name)
        text = (variant_of($2) ? variant_of($2) " " : "") $4
        error[name] = error[name] ? error[name] ", " text : text
    }
    /^\| kernel \|/ { print $0 " L1 error | target | measured |"; next }
    /^\| --- / { print $0 " --- | --- | --- |"; next }
    /^\|/ {
        print $0 " " ($2 in error ? error[$2] : "-") " | " \
            ($2 in target ? target[$2] " %" : "-") " | not yet run on a GPU |"
    }' "$work/errors" "$work/compiled"
