# test-totals.awk - add up test functions: "N passed, N failed, N skipped".
#
#   awk -f test-totals.awk build/X/ctest.log build/X/Testing/Temporary/LastTest.log [the next pair...] [X.total...]
#
# The first of a pair is what ctest printed and gives the verdict on each program; the second holds what
# the programs printed, with cmocka's line for each function.  A function that was begun and neither
# passed nor skipped has failed, also when its program crashed.  A program without such lines counts as
# one test, and so does one that failed although its functions passed (a leak found at its end).
# Functions are counted once per program: a forked child may print a copy of what its parent held back.
#
# X.total is what another test printed, whose last line is such a total; one that has none has failed.

function add_up(    program, key, part, n, bad) {
    for (program in verdict) {
        n = bad = 0
        for (key in begun) {
            split(key, part, SUBSEP)
            if (part[1] != program)
                continue
            n++
            if (key in passed)
                n_passed++
            else if (key in skipped)
                n_skipped++
            else
                bad++
        }
        if (verdict[program] == "Failed" && bad == 0)
            bad = 1
        else if (verdict[program] == "Skipped" && n == 0)
            n_skipped++
        else if (verdict[program] == "Passed" && n == 0)
            n_passed++
        n_failed += bad
    }
    delete verdict
    delete begun
    delete passed
    delete skipped
}

function name_at(skip) {
    return program SUBSEP substr($0, RSTART + skip, RLENGTH - skip)
}

function add_total(    words) {
    if (!match(last_line, /^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$/)) {
        n_failed++
        return
    }
    split(last_line, words, " ")
    n_passed += words[1]
    n_failed += words[3]
    n_skipped += words[5]
}

FNR == 1 && is_total { add_total() }
FNR == 1 { is_total = FILENAME ~ /\.total$/ }
is_total { last_line = $0; next }
FNR == 1 { is_verdicts = FILENAME ~ /ctest\.log$/ }
FNR == 1 && is_verdicts { add_up() }

is_verdicts && match($0, /^ *[0-9]+\/[0-9]+ Test +#[0-9]+: [^ ]+/) {
    split(substr($0, RSTART, RLENGTH), words, ": ")
    verdict[words[2]] = /\*\*\*Skipped/ ? "Skipped" : / Passed / ? "Passed" : "Failed"
}

!is_verdicts && /^[0-9]+\/[0-9]+ Testing: / { program = $3 }
!is_verdicts && match($0, /\[ RUN      \] [A-Za-z0-9_]+/) { begun[name_at(13)] = 1 }
!is_verdicts && match($0, /\[       OK \] [A-Za-z0-9_]+/) { passed[name_at(13)] = 1 }
!is_verdicts && match($0, /\[  SKIPPED \] [A-Za-z0-9_]+/) { skipped[name_at(13)] = 1 }

END {
    add_up()
    if (is_total)
        add_total()
    printf "%d passed, %d failed, %d skipped\n", n_passed, n_failed, n_skipped
    exit n_failed > 0 || n_passed == 0
}
