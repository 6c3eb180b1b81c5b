#!/bin/bash
# check-oci.sh - the OCI kit of deploy/oci with the programs of the release build (tests/oci).
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/packages.sh oci
scripts/build.sh release programs
exec tests/oci/check.sh build/release/bin
