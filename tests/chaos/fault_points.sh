#!/bin/bash
# fault_points.sh - the fault points of the code are those of fault_points.def, each in the program it is said to be in.
#
# Run as a test, with the top folder of the sources as its argument.  Prints what one of them lacks: `<` stands before
# a line of the code, `>` before one of the list.
set -euo pipefail
cd "$1"

# points FOLDER PROGRAM: "PROGRAM NAME" for each point that the folder's sources pass.
points() {
    grep -rhoE --include='*.c' 'fault_point\("[^"]+"\)' "$1" | sed -E "s/.*\"(.*)\".*/$2 \\1/"
}

in_code=$(points supervisor llmd && points gateway llm-gateway && points gpu-worker llm-worker)
listed=$(sed -nE 's/^POINT\([A-Z_]+, "([^"]+)", "([^"]+)".*/\1 \2/p' tests/chaos/fault_points.def)
elsewhere=$(points common - || true)$(points proto - || true)$(points text - || true)
[[ -z $elsewhere ]] || { echo "no program's own: $elsewhere" && exit 1; }
diff <(sort -u <<<"$in_code") <(sort <<<"$listed")
