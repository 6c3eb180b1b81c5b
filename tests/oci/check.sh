#!/bin/bash
# check.sh BIN - the OCI kit of deploy/oci: the platform's contract kept by the programs in BIN, in each mode that
# deployments have; the Makefile, the YAML files and the tools, against stand-ins of what is not here (an engine,
# OCI's SDK, the platform's edge).
#
# Prints a line for each test as cmocka does, last "N passed, N failed, N skipped".  Exit code 77: no python3.
# shellcheck disable=SC2034 # the sourced files use what is set here
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
export LC_ALL=C PYTHONDONTWRITEBYTECODE=1
bin=$(realpath "$1")
# Debian's, which has the modules that scripts/packages.sh installs.
python=/usr/bin/python3
kit=deploy/oci
here=tests/oci

if ! "$python" -c 'import yaml, requests' 2>/dev/null; then
    echo "SKIPPED: there is no python3 with yaml and requests (scripts/packages.sh oci)"
    echo "0 passed, 0 failed, 1 skipped"
    exit 77
fi
folder=$(mktemp -d "${TMPDIR:-/tmp}/llmd-oci-XXXXXX")
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM

# shellcheck disable=SC1091
{
    . tests/container/verdict.sh
    . "$here/test_contract.sh"
    . "$here/test_makefile.sh"
    . "$here/test_tools.sh"
}
verdict_total
