# test_kills.sh - kill -9 of each process inside, while streams run: they go on, byte for byte.
#
# One container in the tightest cage.  Each stream is asked for once undisturbed; then all again, with the kill
# when every one of them has begun and none has ended.
# shellcheck shell=bash disable=SC2154

SEEDS=(1 5 13 40) # of long stories, 270 tokens and more: a busy engine takes its time to kill

stream() {
    engine_exec kill curl -sSN --max-time 120 -H 'Content-Type: application/json' -d \
        "{\"inputs\":\"The little dog\",\"parameters\":{\"max_new_tokens\":480,\"do_sample\":true,\"seed\":$1}}" \
        http://127.0.0.1:8080/generate_stream
}

begin_service_to_kill_in() {
    local seed
    engine_start kill "${caged[@]}" "${slow[@]}" || return 1
    engine_wait_ready kill || fail "$(engine_logs kill)"
    for seed in "${SEEDS[@]}"; do
        stream "$seed" >"$folder/wanted.$seed" &
    done
    wait
    for seed in "${SEEDS[@]}"; do
        holds '"generated_text":"' "$folder/wanted.$seed" || fail "stream $seed did not end"
    done
}
run begin_service_to_kill_in

# streams_outlive PROCESS
streams_outlive() {
    local seed pid asker
    local -A askers=()
    pid=$(engine_pid kill "$1") || return 1
    rm -f "$folder"/got.*
    for seed in "${SEEDS[@]}"; do
        stream "$seed" >"$folder/got.$seed" &
        askers[$seed]=$!
    done
    for seed in "${SEEDS[@]}"; do
        until [[ -s $folder/got.$seed ]]; do kill -0 "${askers[$seed]}" || fail "stream $seed did not begin"; done
    done
    engine_exec kill sh -c "kill -9 $pid" || fail "cannot kill process $pid"
    kill -0 "${askers[@]}" || fail "a stream had ended before the kill: nothing is shown"
    for asker in "${askers[@]}"; do
        wait "$asker" || fail "a stream was cut"
    done
    for seed in "${SEEDS[@]}"; do
        cmp "$folder/wanted.$seed" "$folder/got.$seed" || fail "stream $seed has other bytes"
    done
    engine_wait_ready kill || return 1
    [[ $(engine_pid kill "$1") != "$pid" ]] || fail "nothing was killed"
}

streams_outlive_the_worker() {
    streams_outlive "worker 0.0"
}
run streams_outlive_the_worker

streams_outlive_the_gateway() {
    streams_outlive gateway
}
run streams_outlive_the_gateway

streams_outlive_llmd() {
    streams_outlive llmd
}
run streams_outlive_llmd

# Not counted: the shell that looks, and what it has not waited for yet.
no_dead_process_is_left() {
    local dead
    # shellcheck disable=SC2016 # expanded inside
    dead=$(engine_exec kill sh -c 'for f in /proc/[0-9]*/stat; do read -r line <"$f" || continue
        case $line in *") Z "*) echo "$line" ;; esac; done')
    [[ -z $dead ]] || fail "$dead"
}
run no_dead_process_is_left

the_container_still_stops_with_0() {
    engine_podman stop -t 40 llmd-kill >/dev/null
    [[ $(engine_exit_code kill) == 0 ]] || fail "exit code $(engine_exit_code kill): $(engine_logs kill | tail -3)"
    engine_end kill
}
run the_container_still_stops_with_0
