#!/bin/bash
# test_systemd.sh BIN SOURCES - the built programs and our units under a real systemd (sdbox.sh).
#
# If this breaks, the unit promises what systemd does not do: children are killed with llmd, descriptors do not
# come back, or something outlives the service.  While clients stream, llmd is killed, stopped (watchdog), and
# its children are killed; every answer must be the one of the undisturbed run.
#
# Exit code 77: not root, or no namespaces here.
set -eu
bin=$1 sources=$2
box=$(mktemp -d "${TMPDIR:-/tmp}/llmd-sdbox-XXXXXX")
stage=$box/stage
clients=()

finish() {
    local code=$?
    trap - EXIT
    [[ ${#clients[@]} -eq 0 ]] || kill "${clients[@]}" 2>/dev/null || true
    if [[ $code -ne 0 && $code -ne 77 && -s $box/init.pid ]]; then
        inside journalctl -u llmd --no-pager -o cat | tail -60 >&2 || true
        inside systemctl status llmd --no-pager >&2 || true
    fi
    "$sources/tests/proc/sdbox.sh" stop "$box" || true
    rm -rf "$box"
    exit "$code"
}
trap finish EXIT
trap 'exit 1' INT TERM

inside() {
    "$sources/tests/proc/sdbox.sh" run "$box" "$@"
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

. "$sources/tests/wait_for.sh"

property() {
    inside systemctl show llmd -p "$1" --value
}

is() {
    [[ $(property "$1") == "$2" ]]
}

# Pid, inside the box, of a process as llmctl names it; nothing when it is not ready.
pid_of() {
    inside llmctl status --json 2>/dev/null |
        sed -n "s/.*\"name\":\"$1\",\"state\":\"ready\",\"pid\":\([0-9]*\),.*/\1/p"
}

has_other_pid() {
    local now
    now=$(pid_of "$1")
    [[ -n $now && $now != "$2" ]]
}

# Since $main.
is_another_llmd() {
    local now
    now=$(property MainPID)
    [[ $now != 0 && $now != "$main" ]] && is_ready
}

# Since $gateway.
is_another_service() {
    has_other_pid gateway "$gateway" && is_ready
}

has_state() {
    [[ $(inside llmctl status --json 2>/dev/null) == *"\"state\":\"$1\",\"uptime_ns\""* ]]
}

is_ready() {
    has_state ready
}

count_processes() {
    inside pgrep -c "$1" || true
}

none_left() {
    [[ $(count_processes '^llm(d|-)') == 0 ]]
}

# One llmd, one worker, one gateway with its keeper.
is_one_service() {
    [[ $(count_processes '^llmd$') == 1 && $(count_processes '^llm-worker$') == 1 &&
        $(count_processes '^llm-gateway$') -le 2 ]]
}

step() {
    echo "== $*"
}

# ---- clients: inside the box, for as long as $box/go exists

# One answer after the other, compared with the first one; "ok", "wrong" or "lost" a line each.
client() {
    local url=http://127.0.0.1:8080/generate_stream body
    body="{\"inputs\":\"Once upon a time\",\"parameters\":{\"max_new_tokens\":120,\"seed\":$1,\"do_sample\":true}}"
    ask() { inside curl -sS -N --max-time 60 "$url" -H 'Content-Type: application/json' -d "$body"; }
    ask >"$box/want.$1" 2>>"$box/errors"
    [[ $(wc -l <"$box/want.$1") -gt 100 ]] || echo lost
    while [[ -e $box/go ]]; do
        if ! ask >"$box/got.$1" 2>>"$box/errors"; then
            echo lost
        elif cmp -s "$box/want.$1" "$box/got.$1"; then
            echo ok
        else
            echo wrong
            cp "$box/got.$1" "$box/wrong.$1"
        fi
    done >>"$box/answers.$1"
}

start_clients() {
    : >"$box/go"
    for seed in 1 2 3 4; do
        client "$seed" &
        clients+=($!)
    done
    for seed in 1 2 3 4; do
        wait_for 'the first answers' grep -q ok "$box/answers.$seed"
    done
}

count_answers() {
    cat "$box"/answers.* | grep -c "$1" || true
}

has_answers() {
    [[ $(count_answers ok) -ge $1 ]]
}

# Some more answers have come since.
let_them_stream() {
    local n
    n=$(($(count_answers ok) + 8))
    wait_for "answer $n" has_answers "$n"
}

end_clients() {
    rm "$box/go"
    wait "${clients[@]}"
    clients=()
    echo "answers: $(count_answers ok) ok, $(count_answers wrong) wrong, $(count_answers lost) lost"
    if [[ $(count_answers wrong) != 0 || $(count_answers lost) != 0 ]]; then
        tail -5 "$box/errors" >&2
        fail 'answers were lost or wrong'
    fi
}

# ---- the box

mkdir -p "$stage/etc/systemd/system/llmd.service.d" "$stage/etc/llmd" "$stage/etc/sysusers.d" \
    "$stage/usr/bin" "$stage/srv"
for program in llmd llm-gateway llm-worker llmctl; do
    cp "$bin/$program" "$stage/usr/bin/"
done
cp "$sources"/systemd/llmd.{service,socket} "$stage/etc/systemd/system/"
cp "$sources/systemd/sysusers.conf" "$stage/etc/sysusers.d/llmd.conf"
cp -r "$sources/models/stories-demo" "$stage/srv/model"
printf 'model: /srv/model\norphan_timeout_s: 2\ndrain_timeout_s: 5\n' >"$stage/etc/llmd/llmd.yaml"
printf '[Service]\nWatchdogSec=3s\nEnvironment=ASAN_OPTIONS=detect_leaks=0\n' \
    >"$stage/etc/systemd/system/llmd.service.d/test.conf"
chmod -R a+rX "$stage"
"$sources/tests/proc/sdbox.sh" start "$box" "$stage" || exit $?

step 'start is done when the service is ready'
inside systemd-sysusers
inside systemctl start llmd.socket llmd.service
is_ready || fail 'systemctl start came back before the service was ready'
main=$(property MainPID) gateway=$(pid_of gateway) worker=$(pid_of 'worker 0.0')
[[ -n $gateway && -n $worker ]] || fail 'no gateway or no worker'
start_clients

step 'a killed llmd is replaced, and its children serve on'
inside kill -KILL "$main"
wait_for 'another llmd' is_another_llmd
is NRestarts 1 || fail "NRestarts=$(property NRestarts)"
[[ $(pid_of gateway) == "$gateway" ]] || fail 'the gateway was started again'
[[ $(pid_of 'worker 0.0') == "$worker" ]] || fail 'the worker was started again'
[[ $(property NFileDescriptorStore) -gt 5 ]] || fail 'nothing is in the store'
let_them_stream

step 'a llmd that hangs is found by the watchdog'
main=$(property MainPID)
inside kill -STOP "$main"
wait_for 'another llmd' is_another_llmd
is NRestarts 2 || fail "NRestarts=$(property NRestarts)"
[[ $(pid_of gateway) == "$gateway" && $(pid_of 'worker 0.0') == "$worker" ]] ||
    fail 'a child was started again'
let_them_stream

step 'children that the dead llmd had started are replaced by the new one'
inside kill -KILL "$worker"
wait_for 'another worker' has_other_pid 'worker 0.0' "$worker"
let_them_stream
inside kill -KILL "$gateway"
wait_for 'another gateway' has_other_pid gateway "$gateway"
let_them_stream

step 'killed llmds one after the other are no reason to give up'
for ((n = 0; n < 8; n++)); do
    main=$(property MainPID)
    inside kill -KILL "$main"
    wait_for 'another llmd' is_another_llmd
done
let_them_stream
end_clients

step 'restart ends with a fresh service'
gateway=$(pid_of gateway)
inside systemctl restart llmd
is_ready || fail 'not ready after a restart'
[[ $(pid_of gateway) != "$gateway" ]] || fail 'the old gateway is still there'
is_one_service || fail "processes after a restart: $(inside pgrep -a '^llm(d|-)')"
inside curl -sSf http://127.0.0.1:8080/health

has_request() {
    inside curl -sS http://127.0.0.1:8080/metrics | grep -q '^llmd_requests_active 1'
}

step 'restart whose llmd is killed in its drain ends with a fresh service too'
main=$(property MainPID) gateway=$(pid_of gateway)
worker=$(pid_of 'worker 0.0')
inside kill -STOP "$worker" # the stream, and with it the drain, cannot end before the kill
inside curl -sS -N http://127.0.0.1:8080/generate_stream -H 'Content-Type: application/json' \
    -d '{"inputs":"Once","parameters":{"max_new_tokens":240}}' >"$box/last" &
clients=($!)
wait_for 'the stream' has_request
inside systemctl restart --no-block llmd
wait_for 'the drain' has_state draining
inside kill -KILL "$main"
inside kill -CONT "$worker"
wait "${clients[@]}" || fail 'the stream was cut off'
clients=()
wait_for 'a fresh service' is_another_service
is_one_service || fail "processes after a drain: $(inside pgrep -a '^llm(d|-)')"
inside curl -sSf http://127.0.0.1:8080/health

step 'stop leaves nothing'
inside systemctl stop llmd.socket llmd.service
[[ $(property Result) == success ]] || fail "Result=$(property Result)"
none_left || fail "processes are left: $(inside pgrep -a '^llm(d|-)')"
is NFileDescriptorStore 0 || fail 'descriptors are left'

step 'children of a unit that has failed drain and end'
inside systemctl start llmd
inside sh -c 'echo "port: no number" >>/etc/llmd/llmd.yaml'
inside kill -KILL "$(property MainPID)"
wait_for 'the unit to fail' is ActiveState failed
is ExecMainStatus 2 || fail "ExecMainStatus=$(property ExecMainStatus)"
wait_for 'the orphans to end' none_left
