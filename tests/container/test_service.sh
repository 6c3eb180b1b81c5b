# test_service.sh - a container from start to stop.
# shellcheck shell=bash disable=SC2154

STORY='{"inputs":"Once upon a time","parameters":{"max_new_tokens":200,"do_sample":true,"seed":7}}'

answers() {
    engine_ask "$1" /generate '{"inputs":"Once upon a time","parameters":{"max_new_tokens":8}}' |
        holds '"generated_text":"'
}

a_plain_run_serves_the_demo_model_on_8080() {
    engine_start plain --network none || return 1
    engine_wait_ready plain || fail "$(engine_logs plain)"
    [[ $(engine_ask plain /health) == "" ]] || fail "/health has a body"
    answers plain || fail "no answer"
    engine_end plain
}
run a_plain_run_serves_the_demo_model_on_8080

a_port_of_the_host_is_served() {
    local mine
    mine=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    engine_start host --network host -e PORT="$mine" || return 1
    engine_wait_ready host || fail "$(engine_logs host)"
    curl -sS --max-time 60 "http://127.0.0.1:$mine/predict" -d '{"inputs":"Once upon a time"}' |
        holds '"generated_text":"' || fail "no answer on port $mine"
    engine_end host
}
run a_port_of_the_host_is_served

the_tightest_cage_is_enough() {
    engine_start cage "${caged[@]}" || return 1
    engine_wait_ready cage || fail "$(engine_logs cage)"
    answers cage || fail "no answer"
    # shellcheck disable=SC2016 # expanded inside
    engine_exec cage sh -c 'while read -r name value; do case $name in
        CapEff:|CapBnd:) [ "$value" = 0000000000000000 ] || echo "$name $value" ;;
        NoNewPrivs:) [ "$value" = 1 ] || echo "$name $value" ;; esac; done </proc/1/status
        : 2>/dev/null >/usr/x && echo "the root can be written"; exit 0' >"$folder/cage"
    [[ ! -s $folder/cage ]] || fail "$(cat "$folder/cage")"
    engine_end cage
}
run the_tightest_cage_is_enough

lines_are_json() {
    python3 -c 'import json, sys
n = 0
for line in sys.stdin:
    entry = json.loads(line)
    assert {"timestamp", "level", "process", "message"} <= entry.keys(), line
    n += 1
assert n > 10, n'
}

logs_are_json_objects_from_start_to_end() {
    engine_start logs --network none || return 1
    engine_wait_ready logs || return 1
    answers logs || fail "no answer"
    engine_podman stop -t 40 llmd-logs >/dev/null
    engine_logs logs | lines_are_json || fail "$(engine_logs logs)"
    engine_end logs
}
run logs_are_json_objects_from_start_to_end

# Slow enough that a stop meets it in the middle.
slow=(-e LLMD_CPU_TIER=plain -e LLMD_THREADS=1)

sigterm_finishes_what_runs_and_exits_0() {
    local asker
    engine_start term "${caged[@]}" "${slow[@]}" || return 1
    engine_wait_ready term || return 1
    engine_ask term /generate "$STORY" >"$folder/whole"
    engine_exec term curl -sSN --max-time 120 -H 'Content-Type: application/json' -d "$STORY" \
        http://127.0.0.1:8080/generate_stream >"$folder/stream" &
    asker=$!
    until [[ -s $folder/stream ]]; do kill -0 $asker || fail "no stream"; done
    engine_podman kill -s TERM llmd-term >/dev/null || return 1
    wait $asker
    [[ $(engine_exit_code term) == 0 ]] || fail "exit code $(engine_exit_code term)"
    python3 "$here/same_text.py" "$folder/whole" "$folder/stream" || fail "the stream was cut"
    engine_end term
}
run sigterm_finishes_what_runs_and_exits_0

is_healthy() {
    engine_podman healthcheck run "llmd-$1" >/dev/null 2>&1
}

healthcheck_fails_while_llmd_hangs_and_passes_again() {
    local pid i
    engine_start health "${caged[@]}" || return 1
    engine_wait_ready health || return 1
    is_healthy health || fail "not healthy when it is ready"
    pid=$(engine_pid health llmd)
    engine_exec health sh -c "kill -STOP $pid"
    ! is_healthy health || fail "healthy although llmd is stopped"
    for ((i = 0; i < 120; i++)); do # llm-init's watchdog ends it after 10 s
        is_healthy health && break
        sleep 0.5
    done
    [[ $i -lt 120 ]] || fail "llmd was not replaced: $(engine_logs health | tail -5)"
    [[ $(engine_pid health llmd) != "$pid" ]] || fail "it is the same llmd"
    engine_end health
}
run healthcheck_fails_while_llmd_hangs_and_passes_again

healthcheck_fails_while_it_drains() {
    engine_start drain --network none "${slow[@]}" || return 1
    engine_wait_ready drain || return 1
    engine_exec drain curl -sSN -H 'Content-Type: application/json' -d "$STORY" \
        http://127.0.0.1:8080/generate_stream >"$folder/drained" &
    until [[ -s $folder/drained ]]; do kill -0 $! || fail "no stream"; done
    engine_podman kill -s TERM llmd-drain >/dev/null
    ! is_healthy drain || fail "healthy while it drains"
    wait $!
    engine_end drain
}
run healthcheck_fails_while_it_drains

a_missing_model_ends_the_container_with_its_reason() {
    engine_start missing --network none -- --model /nowhere || return 1
    [[ $(engine_exit_code missing) != 0 ]] || fail "exit code 0"
    engine_logs missing | holds '"level":"error".*/nowhere' || fail "$(engine_logs missing)"
    engine_end missing
}
run a_missing_model_ends_the_container_with_its_reason
