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

# check NAME [option...]: scripts/check-NAME.sh, told to test-totals.awk as ctest would have.
check() {
    local name=$1 result=0 verdict=Passed
    local folder=build/check-$name
    shift
    echo "== check-$name"
    mkdir -p "$folder"
    echo "1/1 Testing: check-$name" >"$folder/LastTest.log"
    "scripts/check-$name.sh" "$@" 2>&1 | tee -a "$folder/LastTest.log" || result=$?
    case $result in
    0) ;;
    77) verdict='***Skipped' ;;
    *) verdict='***Failed' code=1 ;;
    esac
    echo "1/1 Test #1: check-$name ... $verdict " >"$folder/ctest.log"
    logs+=("$folder/ctest.log" "$folder/LastTest.log")
}

scripts/packages.sh test
# Before cmake looks for npm.
scripts/packages.sh web || echo "The packages for the browser tests cannot be installed."
rm -f build/*.total build/*/ctest.log build/*/Testing/Temporary/LastTest.log
run release
run debug
run tsan -L threads
check systemd --package
check web
echo "== client libraries"
scripts/check-clients.sh --or-skip 2>&1 | tee build/clients.total || code=1
logs+=(build/clients.total)
awk -f scripts/test-totals.awk "${logs[@]}" || code=1
exit "$code"
