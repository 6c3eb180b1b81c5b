#!/bin/bash
# check-container.sh [FULL] - build the images of docker/Dockerfile, and run them (tests/container).
#
# Uses buildah, podman and runc of Debian, no engine, and the programs of the release build; with FULL=1 the
# Dockerfile's own builder compiles, and target debug is built too.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/packages.sh container
scripts/build.sh release programs
if [[ ${1:-} == 1 ]]; then
    exec tests/container/check.sh build/release/bin --full
fi
exec tests/container/check.sh build/release/bin
