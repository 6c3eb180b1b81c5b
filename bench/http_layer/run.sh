#!/bin/sh
# run.sh - measure the HTTP layer on this machine: wrk for small requests, streams.py for event streams.
#
#     bench/http_layer/run.sh build/release/bin/http_layer_server | tee -a bench/http_layer/results.csv
#
# Columns: what, connections, per second, server CPU in us for each, p99 in ms, bytes of memory for each
set -eu
server=$1
here=$(dirname "$0")
port=18219
ulimit -n 16384

start() {
    "$server" $port "$1" & pid=$!
    sleep 0.3
}
stop() {
    kill $pid
    wait $pid 2>/dev/null || true
}
ticks() {
    awk '{ print $14 + $15 }' /proc/$pid/stat
}
small() { # name, connections, path, wrk's arguments
    name=$1 conns=$2 path=$3
    shift 3
    start 1000
    before=$(ticks)
    out=$(wrk -t1 -c"$conns" -d6 --latency "$@" "http://127.0.0.1:$port$path")
    after=$(ticks)
    echo "$out" | awk -v name="$name" -v conns="$conns" -v ticks=$((after - before)) '
        /requests in/ { n = $1 } /Requests\/sec/ { rate = $2 } $1 == "99%" { p99 = $2 }
        END { printf "%s,%s,%.0f,%.2f,%s,\n", name, conns, rate, ticks * 10000 / n, p99 }'
    stop
}
streams() { # path, number, ms between events
    start "$3"
    python3 "$here/streams.py" $port $pid "$1" "$2" 5 | awk -F, -v ms="$3" '
        { printf "%s every %s ms,%s,%s,%s,,%s\n", $1, ms, $2, $4, $5, $3 }'
    stop
}

small "GET keep-alive" 64 /
small "GET keep-alive" 1000 /
small "POST echo 54 bytes" 64 /echo -s "$here/post.lua"
streams /idle 1000 1000
streams /idle 5000 1000
streams /events 1000 50
streams /events 1000 20
