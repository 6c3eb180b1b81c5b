#!/bin/bash
# test.sh [WERROR] - build and run every test: release, debug (ASan, UBSan, leaks), and those that have to
# do with threads under ThreadSanitizer; then client libraries of other people against the release build.  The
# last line is the total; exit code 0 when nothing failed.
set -euo pipefail
cd "$(dirname "$0")/.."

werror=${1:-OFF}
jobs=$(nproc)
logs=()
code=0

# run PRESET [ctest option...]
run() {
    local preset=$1
    shift
    echo "== $preset: build"
    scripts/build.sh "$preset" all "-DLLMD_WERROR=$werror"
    echo "== $preset: test"
    ctest --preset "$preset" -j "$jobs" "$@" 2>&1 | tee "build/$preset/ctest.log" || code=1
    logs+=("build/$preset/ctest.log" "build/$preset/Testing/Temporary/LastTest.log")
}

scripts/packages.sh test
rm -f build/*.total build/*/ctest.log build/*/Testing/Temporary/LastTest.log
run release
run debug
run tsan -L threads
echo "== client libraries"
scripts/check-clients.sh --or-skip 2>&1 | tee build/clients.total || code=1
logs+=(build/clients.total)
awk -f scripts/test-totals.awk "${logs[@]}" || code=1
exit "$code"
