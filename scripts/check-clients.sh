#!/bin/bash
# check-clients.sh [--or-skip] - client libraries of other people against the release build.
#
# They are installed into tests/clients/node_modules, at the versions of package-lock.json, when those are not
# there.  Needs node 20 and npm, and the npm registry at the first time.  --or-skip: where one of them cannot be had
# the last line says so and the exit code is 0.  It is always "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "$0")/.."

or_skip=${1:-}
report=$(mktemp)
trap 'rm -f "$report"' EXIT

cannot() {
    echo "client libraries: $1" >&2
    if [[ $or_skip != --or-skip ]]; then
        exit 1
    fi
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}

has_node() {
    command -v npm >/dev/null && [[ $(node --version 2>/dev/null) =~ ^v([0-9]+) ]] && ((BASH_REMATCH[1] >= 20))
}

are_installed() {
    cmp -s package-lock.json node_modules/.installed
}

install_clients() {
    npm ci --no-audit --no-fund --loglevel=error && cp package-lock.json node_modules/.installed
}

has_node || cannot "node 20 and npm are not here"
scripts/packages.sh test
scripts/build.sh release programs
scripts/build.sh release serve_scripted
cd tests/clients
are_installed || install_clients || cannot "they cannot be installed"
code=0
node --test --test-concurrency=1 --test-reporter=spec --test-reporter-destination=stdout \
    --test-reporter=tap --test-reporter-destination="$report" || code=$?
awk '/^# (pass|fail|cancelled|skipped) [0-9]+$/ { n[$2] = $3 }
    END { printf "%d passed, %d failed, %d skipped\n", n["pass"], n["fail"] + n["cancelled"], n["skipped"] }' "$report"
exit "$code"
