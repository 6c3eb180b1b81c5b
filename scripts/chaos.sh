#!/bin/bash
# chaos.sh ROUNDS SEED [option of tests/chaos/main.c...] - the long form of the chaos suite.
#
# Kills processes of the release build under load, round after round, and writes the table of kinds to
# bench/chaos.csv.  The last line is the result; exit code 0 when nothing was lost, wrong, refused or left.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=$1
seed=$2
shift 2
scripts/packages.sh test
scripts/build.sh release chaos
exec build/release/bin/chaos --rounds "$rounds" --seed "$seed" --csv bench/chaos.csv "$@"
