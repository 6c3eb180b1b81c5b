#!/bin/bash
# check-systemd.sh [--package] - units and package under a real systemd; the last line is "N passed, N failed".
#
# --package: without what ctest runs as well (verify_units, test_systemd).  What cannot run here, for want of root
# or namespaces, is printed as skipped; exit code 77 when that is all of it.
set -euo pipefail
cd "$(dirname "$0")/.."

n_passed=0 n_failed=0 n_skipped=0

# whole NAME COMMAND...: a program that is one test.
whole() {
    local name=$1 code=0
    shift
    echo "[ RUN      ] $name"
    "$@" || code=$?
    case $code in
    0) echo "[       OK ] $name" && n_passed=$((n_passed + 1)) ;;
    77) echo "[  SKIPPED ] $name" && n_skipped=$((n_skipped + 1)) ;;
    *) echo "[  FAILED  ] $name" && n_failed=$((n_failed + 1)) ;;
    esac
}

lint() {
    local found
    command -v lintian >/dev/null || return 77
    # of programs that have no page yet it is known; all else is news
    found=$(lintian --allow-root --tag-display-limit 0 "$1" | grep '^[EW]:' | grep -v ' no-manual-page ' || true)
    [[ -z $found ]] || { echo "$found" && return 1; }
}

# The package's tests, one by one, from their own count.
package() {
    local root=$PWD/build/clean-root log=build/test_package.log code=0 depends
    depends=$(dpkg-deb -f "$1" Depends | tr ',|' '\n\n' | sed 's/([^)]*)//; s/ //g' | sort -u | tr '\n' ' ')
    # shellcheck disable=SC2086 # words
    scripts/clean-root.sh "$root" curl systemd-sysv $depends || code=$?
    if [[ $code -eq 0 ]]; then
        tests/proc/test_package.sh "$1" "$root" "$PWD/README.md" 2>&1 | tee "$log" || code=$?
    fi
    if [[ $code -eq 77 ]]; then
        whole test_package exit_with 77
        return
    fi
    n_passed=$((n_passed + $(grep -c '^\[       OK \]' "$log" || true)))
    n_failed=$((n_failed + $(grep -c '^\[  FAILED  \]' "$log" || true)))
    tail -1 "$log" | grep -q ' passed, ' || whole test_package exit_with 1
}

exit_with() {
    return "$1"
}

if [[ ${1:-} != --package ]]; then
    scripts/packages.sh systemd
    scripts/build.sh release programs
    whole verify_units tests/proc/verify_units.sh build/release/systemd
    whole test_systemd tests/proc/test_systemd.sh "$PWD/build/release/bin" "$PWD"
fi
deb=$(scripts/deb.sh)
whole lintian lint "$deb"
package "$deb"
echo "$n_passed passed, $n_failed failed$([[ $n_skipped -eq 0 ]] || echo ", $n_skipped skipped")"
[[ $n_failed -eq 0 ]] || exit 1
[[ $n_passed -gt 0 ]] || exit 77
