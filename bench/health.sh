#!/bin/bash
# health.sh BIN MODEL [PROBES] - how fast /health answers while every compute thread is busy.
#
# Starts a server, keeps 32 streams running, and asks /health and /health/ready PROBES times each (400), one after
# the other on one connection.  Prints min, median, p99 and max in milliseconds, and writes bench/health.csv.
set -euo pipefail

bin=$1
model=$2
probes=${3:-400}
dir=$(mktemp -d)
csv=$(dirname "$0")/health.csv
"$bin/llmd" --model "$model" --host 127.0.0.1 --port 0 --runtime-dir "$dir/run" --log-level error &
llmd=$!
trap 'kill "$llmd" 2>/dev/null; wait; rm -rf "$dir"' EXIT
"$bin/llmctl" --runtime-dir "$dir/run" wait --quiet
at=http://$("$bin/llmctl" --runtime-dir "$dir/run" status --json | sed -n 's/.*"listen":\["\([^"]*\)".*/\1/p')

stream() {
    while [[ -e $dir/busy ]]; do
        curl -sN "$at/v1/completions" -H 'Content-Type: application/json' -o /dev/null \
            -d '{"prompt":"Once upon a time","max_tokens":480,"ignore_eos":true,"stream":true}' || true
    done
}

# probe NAME PATH
probe() {
    curl -s -o /dev/null -w '%{time_total}\n' "$at$2?[1-$probes]" | sort -n |
        awk -v name="$1" '{ t[NR] = $1 * 1000 }
            END { printf "%s,%d,%.2f,%.2f,%.2f,%.2f\n", name, NR, t[1], t[int((NR + 1) / 2)], t[int(NR * 0.99)], t[NR] }'
}

touch "$dir/busy"
streams=()
for _ in $(seq 32); do
    stream &
    streams+=($!)
done
sleep 2
{
    echo what,probes,min_ms,median_ms,p99_ms,max_ms
    probe "/health under 32 streams" /health
    probe "/health/ready under 32 streams" /health/ready
} | tee "$csv"
rm "$dir/busy"
wait "${streams[@]}"
probe "/health idle" /health | tee -a "$csv"
