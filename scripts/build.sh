#!/bin/bash
# build.sh PRESET TARGET [cmake option...] - configure once, then build what changed of "programs" or "all".
#
# ninja runs cmake by itself when a CMakeLists.txt changed, so cmake is called here only for a new build
# folder or when options are given: a build of nothing takes some 20 ms.
set -euo pipefail
cd "$(dirname "$0")/.."

preset=$1
target=$2
shift 2
folder=build/$preset
log=$folder/configure.log

if [[ ! -f $folder/build.ninja || $# -gt 0 ]]; then
    mkdir -p "$folder"
    if ! cmake --preset "$preset" "$@" >"$log" 2>&1; then
        cat "$log" >&2
        exit 1
    fi
fi
if [[ $(ninja -C "$folder" --quiet -n "$target") == *"no work to do"* ]]; then
    exit 0
fi
if [[ -t 1 ]]; then
    exec ninja -C "$folder" "$target"
fi
exec ninja -C "$folder" --quiet "$target"
