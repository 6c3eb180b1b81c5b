#!/bin/bash
# check-clients.sh - client libraries of other people against the release build's gateway.
#
# They are installed into tests/clients/node_modules, at the versions of package-lock.json, when they are not
# there.  Needs node 20 and npm.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/packages.sh test
scripts/build.sh release serve_scripted
cd tests/clients
[[ -d node_modules ]] || npm ci --no-audit --no-fund
export LLMD_SERVE=${LLMD_SERVE:-$PWD/../../build/release/bin/serve_scripted}
exec npm test
