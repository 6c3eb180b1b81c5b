#!/bin/bash
# chaos-1b.sh ROUNDS SEED [CLIENTS] - how long a killed worker of a model of a billion parameters is missed.
#
# Makes the model (2 GB of random weights) in a folder of its own under TMPDIR, kills workers under one stream
# (more meet the prefill of others), writes bench/chaos_1b.csv, and removes the model.  undisturbed_pause is the
# decode step as the clients see it.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=$1
seed=$2
clients=${3:-1}
folder=$(mktemp -d "${TMPDIR:-/tmp}/llmd-1b-XXXXXX")
trap 'rm -rf "$folder"' EXIT

scripts/packages.sh test
scripts/build.sh release chaos
scripts/build.sh release make_model
build/release/bin/make_model models/stories-demo "$folder/model"
build/release/bin/chaos --rounds "$rounds" --seed "$seed" --csv bench/chaos_1b.csv \
    --model "$folder/model" --large --shape one --clients "$clients" --only worker_kill \
    --hang-step-ms 10000 --calm-ms 15000
