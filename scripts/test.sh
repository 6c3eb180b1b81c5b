#!/bin/bash
# test.sh [WERROR] - build and run every test: release, debug (ASan, UBSan, leaks), and those that have to
# do with threads under ThreadSanitizer; then the package, the web pages and client libraries of other people against
# the release build.  The last line is the total; exit code 0 when nothing failed.
set -euo pipefail
cd "$(dirname "$0")/.."

werror=${1:-OFF}
jobs=$(nproc)
logs=()
code=0

# run PRESET TARGET [ctest option...]
run() {
    local preset=$1 target=$2
    shift 2
    echo "== $preset: build"
    local kernels=OFF # for GPUs: the tests of the other builds run them on the CPU
    [[ $preset != release ]] || kernels=ON
    scripts/build.sh "$preset" "$target" "-DLLMD_WERROR=$werror" "-DLLMD_FATBINS=$kernels"
    echo "== $preset: test"
    ctest --preset "$preset" -j "$jobs" "$@" 2>&1 | tee "build/$preset/ctest.log" || code=1
    logs+=("build/$preset/ctest.log" "build/$preset/Testing/Temporary/LastTest.log")
}

# check NAME [option...]: scripts/check-NAME.sh, whose last line is its total; 77 when all of it was skipped.
check() {
    local name=$1 result=0
    shift
    echo "== check-$name"
    "scripts/check-$name.sh" "$@" 2>&1 | tee "build/check-$name.total" || result=$?
    [[ $result -eq 0 || $result -eq 77 ]] || code=1
    logs+=("build/check-$name.total")
}

scripts/packages.sh test
# Before cmake looks for npm.
scripts/packages.sh web || echo "The packages for the browser tests cannot be installed."
rm -f build/*.total build/*/ctest.log build/*/Testing/Temporary/LastTest.log
run release all
run debug all
run tsan thread_tests -L threads
check systemd --package
check web
check clients --or-skip
awk -f scripts/test-totals.awk "${logs[@]}" || code=1
exit "$code"
