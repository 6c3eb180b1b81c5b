#!/bin/bash
# compile.sh NVCC FAMILY OUT TARGETS PTX [nvcc option...] - compile kernels/FAMILY.cu for GPUs into the fatbin OUT.
#
# TARGETS are compute capabilities, parted by semicolons ("75;80;90a"), PTX is the one of the PTX that is put in too.
# Beside OUT: OUT.d, what it depends on, and OUT.log, what the assembler says of registers, spills and shared memory
# (read by tests/cuda/check-compiled.sh).  Warnings are errors.
set -euo pipefail

nvcc=$1 family=$2 out=$3 targets=$4 ptx=$5
shift 5
here=$(dirname "$(readlink -f "$0")")
options=()
for target in ${targets//;/ }; do
    options+=(-gencode "arch=compute_$target,code=sm_$target")
done
options+=(-gencode "arch=compute_$ptx,code=compute_$ptx")

# One GPU after the other, so that the log is in one piece; ninja compiles families side by side.
if ! "$nvcc" -fatbin -std=c++17 -O3 -Werror all-warnings -Wno-deprecated-gpu-targets -Xfatbin -compress-all -Xptxas -v \
    -I "$here/../../.." -MD -MF "$out.d" "${options[@]}" "$@" -o "$out" "$here/$family.cu" \
    >"$out.log" 2>&1; then
    cat "$out.log" >&2
    rm -f "$out"
    exit 1
fi
