#!/bin/bash
# check.sh BIN [--full] - build the images of docker/Dockerfile without an engine, and run them.
#
# BIN has the programs of a release build.  buildah builds in a chroot, podman runs with runc; a Debian base is
# made from this machine's own apt configuration and given as BASE, and BIN's programs as PROGRAMS, so that
# nothing is compiled again.  With --full the Dockerfile's own builder stage compiles image cpu, as a user's build
# does, and target debug is built.
# Everything lies in a folder under TMPDIR that is removed at the end.
#
# Prints a line for each test as cmocka does, last "N passed, N failed, N skipped".  Exit code 77: not root, or a
# tool is missing, or this machine runs no containers; the first line says which.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
export LC_ALL=C
bin=$1
full=${2:-}
here=tests/container

cannot() {
    echo "SKIPPED: $1"
    echo "0 passed, 0 failed, 1 skipped"
    exit 77
}

[[ $(id -u) -eq 0 ]] || cannot "containers are built and run as root here"
for tool in buildah podman runc mmdebstrap python3 curl strip; do
    command -v "$tool" >/dev/null || cannot "there is no $tool (scripts/packages.sh container)"
done
unshare --mount --pid --fork --net --uts --ipc true 2>/dev/null || cannot "no namespaces can be made here"

folder=$(mktemp -d "${TMPDIR:-/tmp}/llmd-container-XXXXXX")
# shellcheck source=tests/container/engine.sh
. "$here/engine.sh"
# shellcheck source=tests/container/verdict.sh
. "$here/verdict.sh"
trap engine_remove EXIT
trap 'exit 130' INT TERM

step() {
    local began=$SECONDS
    echo "== $1"
    shift
    if ! "$@" >"$folder/step.log" 2>&1; then
        cat "$folder/step.log"
        echo "0 passed, 1 failed, 0 skipped"
        exit 1
    fi
    echo "   $((SECONDS - began)) s"
}

step "a Debian to build on" engine_make_base "$full"
step "the programs of $bin" engine_import_programs "$bin"
step "image cpu" engine_build cpu "$full"

# shellcheck disable=SC1091
{
    . "$here/test_image.sh"
    . "$here/test_service.sh"
    . "$here/test_kills.sh"
    . "$here/test_settings.sh"
    . "$here/test_targets.sh"
}
verdict_total
