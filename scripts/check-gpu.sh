#!/bin/bash
# check-gpu.sh [WERROR [FATBINS]] - all that can be known of the GPU backend without a GPU; part of `make test`, and quicker
# alone.
#
#   L0  what nvcc makes of the kernels, where it is; FATBINS=OFF leaves it out: compiling them takes long
#   L1  the kernels on the CPU, against double precision
#   L2  the worker on fake NVIDIA libraries, and gpu-verify's dry run
#   L3  whole servers there, with faults of GPUs under load, the short form (`make chaos-gpu` is the long one)
#
# The tests labelled kernels and cuda, in the release build, with AddressSanitizer, and those with threads under
# ThreadSanitizer.  Last, what the hardware would allow.  What was left out is said at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

werror=${1:-OFF}
fatbins=${2:-ON}
code=0
left_out=()

# run PRESET TARGET FATBINS LABELS [ctest option...]
run() {
    local preset=$1 log=build/$1/check-gpu.log
    echo "== $preset"
    scripts/build.sh "$preset" "$2" "-DLLMD_WERROR=$werror" "-DLLMD_FATBINS=$3"
    ctest --preset "$preset" -j "$(nproc)" -L "$4" "${@:5}" 2>&1 | tee "$log" || code=1
    mapfile -t -O "${#left_out[@]}" left_out < <(
        sed -n "s/^.*Test *#[0-9]*: \([a-z0-9_]*\) \.*\*\*\*Skipped.*/skipped: \1, $preset/p" "$log")
}

scripts/packages.sh test
run release all "$fatbins" 'kernels|cuda'
[[ $fatbins != OFF ]] || left_out+=("skipped: L0, as FATBINS=OFF: no kernel was compiled for a GPU")
grep -q test_chaos_gpu build/release/check-gpu.log ||
    left_out+=("skipped: L1, L2 and L3 with kernels, as there is no C++ compiler")
run debug all OFF 'kernels|cuda'
run tsan thread_tests OFF threads -L 'kernels|cuda'
echo "== the least time of each kernel, by the data sheets"
scripts/gpu-roofline.sh
echo "== left out"
printf '%s\n' "${left_out[@]:-nothing}" "skipped: a GPU; make gpu-verify is what it is asked"
exit "$code"
