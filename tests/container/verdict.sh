# verdict.sh - counts tests, in the words that scripts/test-totals.awk reads.
#
#   run NAME      runs the function NAME, which fails by `fail "why"` or by returning false
#   fail WHY      says why, and ends the test (tests run in a subshell)
#   holds REGEX   is there such a line?  Unlike grep -q it reads all, so that no pipe breaks.
# shellcheck shell=bash

n_passed=0
n_failed=0

fail() {
    echo "    $1"
    exit 1
}

holds() {
    grep "$@" >/dev/null
}

run() {
    printf '[ RUN      ] %s\n' "$1"
    if ("$1"); then
        printf '[       OK ] %s\n' "$1"
        n_passed=$((n_passed + 1))
    else
        printf '[  FAILED  ] %s\n' "$1"
        n_failed=$((n_failed + 1))
    fi
}

verdict_total() {
    echo "$n_passed passed, $n_failed failed, 0 skipped"
    [[ $n_failed -eq 0 && $n_passed -gt 0 ]]
    exit
}
