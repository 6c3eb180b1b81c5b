#!/usr/bin/env bash
# idle.sh - what does a server that nobody asks cost?  CPU time and wake-ups over a while, and resident
# memory of all processes without the shared segments (weights, KV pages, ledger, board).
#
#     bench/idle.sh BIN_DIR MODEL_DIR [SECONDS]        one CSV line per process, then the sum
set -euo pipefail
bin=$1 model=$2 seconds=${3:-20}
dir=$(mktemp -d)
"$bin/llmd" --host 127.0.0.1 --port 0 --model "$model" --runtime-dir "$dir" --log-level error &
llmd=$!
trap 'kill $llmd 2>/dev/null; wait $llmd 2>/dev/null || true; rm -rf "$dir"' EXIT
"$bin/llmctl" --runtime-dir "$dir" wait >/dev/null
"$bin/llmctl" --runtime-dir "$dir" generate --max-tokens 50 "Once upon a time" >/dev/null
sleep 3

# llmd, its children, and the gateway's keeper.
pids() {
    echo "$llmd"
    for child in $(pgrep -P "$llmd"); do echo "$child"; pgrep -P "$child" || true; done
}
cpu_ticks() { awk '{sub(/.*\) /, ""); print $12 + $13}' "/proc/$1/stat"; }
wakeups() { awk '/^voluntary_ctxt_switches/ {n += $2} END {print n}' /proc/"$1"/task/*/status; }
# Resident KiB of all mappings but memfds.
resident() {
    awk '/^[0-9a-f]+-[0-9a-f]+ / {mine = $0 !~ /memfd:/} /^Rss:/ && mine {n += $2} END {print n + 0}' \
        "/proc/$1/smaps"
}

declare -A cpu wake
for pid in $(pids); do cpu[$pid]=$(cpu_ticks "$pid") wake[$pid]=$(wakeups "$pid"); done
sleep "$seconds"
echo "process,cpu_ms_per_s,wakeups_per_s,resident_kib"
sum_cpu=0 sum_rss=0 sum_wake=0
for pid in $(pids); do
    c=$((($(cpu_ticks "$pid") - cpu[$pid]) * 10))
    w=$(($(wakeups "$pid") - wake[$pid]))
    r=$(resident "$pid")
    echo "$(cat "/proc/$pid/comm"),$(awk "BEGIN {print $c / $seconds}"),$(awk "BEGIN {print $w / $seconds}"),$r"
    sum_cpu=$((sum_cpu + c)) sum_rss=$((sum_rss + r)) sum_wake=$((sum_wake + w))
done
echo "all,$(awk "BEGIN {print $sum_cpu / $seconds}"),$(awk "BEGIN {print $sum_wake / $seconds}"),$sum_rss"
