#!/bin/bash
# test_monitoring.sh BIN SOURCES - deploy/monitoring against a live server and a real Prometheus.
#
# If this breaks, the alert that should have waked somebody names a metric that is not there, or never fires.
# Rules are checked and run over made-up series by promtool; then Prometheus scrapes a server of BIN, each expression of
# the rules and of the dashboard is evaluated, and an alert is made to fire by killing a worker.
#
# Exit code 77: no Prometheus or no jq here.
set -Eeuo pipefail
bin=$1 sources=$2 files=$2/deploy/monitoring
for program in promtool prometheus jq curl; do
    command -v "$program" >/dev/null || { echo "skipped: '$program' is not installed"; exit 77; }
done
work=$(mktemp -d "${TMPDIR:-/tmp}/llmd-monitoring-XXXXXX")
pids=()
finish() {
    local code=$?
    trap - EXIT
    if [[ $code -ne 0 ]]; then tail -n 20 "$work"/*.log >&2 || true; fi
    [[ ${#pids[@]} -eq 0 ]] || kill "${pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 1' INT TERM
trap 'echo "FAILED: line $LINENO: $BASH_COMMAND" >&2' ERR

begin() { test=$1; echo "[ RUN      ] $test"; }
passed() { echo "[       OK ] $test"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

. "$sources/tests/wait_for.sh"

begin rules_are_valid_and_fire_on_what_they_say
promtool check rules "$files/llmd.rules.yml" >"$work/check.log"
promtool check config "$files/prometheus.yml" >>"$work/check.log"
promtool test rules "$files/llmd.rules.test.yml" >>"$work/check.log"
for alert in $(sed -n 's/^ *- alert: //p' "$files/llmd.rules.yml"); do
    grep -q "$alert" "$files/llmd.rules.test.yml" || fail "no rule test names $alert"
done
passed

# ---- a server, and a Prometheus that looks at it each second ----

"$bin/llmd" --model "$sources/models/stories-demo" --host 127.0.0.1 --port 0 --runtime-dir "$work/run" \
    --backoff-ms 10 --backoff-max-ms 10 2>"$work/llmd.log" &
pids+=($!)
wait_for "llmd" grep -q "event=ready model=" "$work/llmd.log"
address=$(sed -n 's/.*event=ready.* listen=\([^ ]*\).*/\1/p' "$work/llmd.log" | head -1)

sed -e "s#127.0.0.1:8080#$address#" -e 's/_interval: 15s/_interval: 1s/' "$files/prometheus.yml" >"$work/prometheus.yml"
cp "$files/llmd.rules.yml" "$work/"
for ((port = 20000 + RANDOM % 20000, tries = 0; tries < 20; tries++, port++)); do
    prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" \
        --web.listen-address="127.0.0.1:$port" 2>"$work/prometheus.log" &
    pid=$!
    wait_for "Prometheus" sh -c "curl -fs 127.0.0.1:$port/-/ready || ! kill -0 $pid"
    if kill -0 "$pid" 2>/dev/null; then break; fi
done
pids+=("$pid")

query() { # EXPRESSION: the answer, as JSON
    curl -s "127.0.0.1:$port/api/v1/query" --data-urlencode "query=$1"
}
has_result() {
    query "$1" | jq -e '.data.result | length > 0'
}
generate() {
    curl -fsS "$address/v1/completions" -H 'Content-Type: application/json' \
        -d '{"prompt":"Once upon a time","max_tokens":16}' >/dev/null
}

begin prometheus_scrapes_the_server
generate
wait_for "two scrapes" has_result 'count_over_time(up{job="llmd"}[1m]) >= 2 and up{job="llmd"} == 1'
generate
wait_for "the recordings" has_result 'instance:llmd_generated_tokens:rate1m > 0'
passed

# Each name in an expression must be on the page: PromQL takes any name and answers nothing.
check_expressions() { # FILE: an expression a line
    local names expression
    names=$(
        curl -s "127.0.0.1:$port/api/v1/label/__name__/values" | jq -r '.data[]'
        sed -n 's/^ *- record: //p' "$files/llmd.rules.yml"
    )
    while read -r expression; do
        query "$expression" | jq -e '.status == "success"' >/dev/null || fail "does not parse: $expression"
        for name in $(grep -oE '\b(llmd_[a-z_]+|instance:[a-z_:0-9]+)' <<<"$expression" || true); do
            grep -qx "$name" <<<"$names" || [[ $name == llmd_key_* ]] || fail "'$name' is on no page: $expression"
        done
    done <"$1"
}

begin every_expression_of_the_rules_names_metrics_that_are_there
curl -s "127.0.0.1:$port/api/v1/rules" | jq -r '.data.groups[].rules[].query' >"$work/rules.txt"
[[ $(wc -l <"$work/rules.txt") -ge 20 ]] || fail "too few rules"
check_expressions "$work/rules.txt"
passed

begin every_panel_of_the_dashboard_names_metrics_that_are_there
jq -r '.. | objects | select(has("expr")) | .expr' "$files/grafana-llmd.json" |
    sed -e 's/\$job/llmd/g' -e 's/\$instance/.*/g' -e 's/\$__rate_interval/1m/g' >"$work/panels.txt"
[[ $(wc -l <"$work/panels.txt") -ge 30 ]] || fail "too few panels"
check_expressions "$work/panels.txt"
jq -e '[.panels[].id] | length == (unique | length)' "$files/grafana-llmd.json" >/dev/null || fail "two panels have one id"
passed

begin an_alert_fires_when_a_worker_is_killed_again_and_again
worker() { # its pid, when it is in service
    "$bin/llmctl" --runtime-dir "$work/run" status --json |
        jq -e '.processes[] | select(.name | startswith("worker")) | select(.state == "ready") | .pid'
}
for ((kills = 0; kills < 6; kills++)); do
    wait_for "the worker" worker
    kill -9 "$(worker)"
    generate # waits for the next one
done
wait_for "LlmdRestarting" has_result 'ALERTS{alertname="LlmdRestarting", alertstate="firing"}'
passed
