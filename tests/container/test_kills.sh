# test_kills.sh - kill -9 of each process inside, while streams run: they go on, byte for byte.
#
# One container in the tightest cage.  All streams are asked for once undisturbed; then again, with the kill
# when every one of them has begun and none has ended.
# shellcheck shell=bash disable=SC2154

SEEDS=(1 5 13 40) # of long stories: 270 tokens and more

# ask_all WORD - all streams at once, each into a file WORD.<seed> of the container's /run, and wait for their ends.
ask_all() {
    # shellcheck disable=SC2016 # expanded inside
    engine_exec kill sh -c 'word=$1
        shift
        for seed; do
            curl -sSN --max-time 120 -H "Content-Type: application/json" -d "{\"inputs\":\"The little dog\",
                \"parameters\":{\"max_new_tokens\":480,\"do_sample\":true,\"seed\":$seed}}" \
                http://127.0.0.1:8080/generate_stream >"/run/$word.$seed" || touch "/run/$word.failed" &
        done
        wait
        [ ! -e "/run/$word.failed" ]' sh "$1" "${SEEDS[@]}"
}

# The container's /run, from outside.
files_inside() {
    echo "/proc/$(engine_init_pid kill)/root/run"
}

has_ended() {
    holds '"generated_text":"' "$1"
}

begin_service_to_kill_in() {
    local seed inside
    engine_start kill "${caged[@]}" "${slow[@]}" || return 1
    engine_wait_ready kill || fail "$(engine_logs kill)"
    inside=$(files_inside)
    ask_all wanted || fail "a stream failed"
    for seed in "${SEEDS[@]}"; do
        has_ended "$inside/wanted.$seed" || fail "stream $seed did not end"
    done
}
run begin_service_to_kill_in

# streams_outlive PROCESS
streams_outlive() {
    local seed pid host_pid asker inside
    inside=$(files_inside)
    pid=$(engine_pid kill "$1") && host_pid=$(engine_host_pid kill "$pid") || return 1
    rm -f "$inside"/got.*
    ask_all got &
    asker=$!
    for seed in "${SEEDS[@]}"; do
        until [[ -s $inside/got.$seed ]]; do kill -0 "$asker" || fail "stream $seed did not begin"; done
    done
    kill -9 "$host_pid" || fail "cannot kill process $pid"
    for seed in "${SEEDS[@]}"; do
        ! has_ended "$inside/got.$seed" || fail "stream $seed had ended before the kill: nothing is shown"
    done
    wait "$asker" || fail "a stream was cut"
    for seed in "${SEEDS[@]}"; do
        cmp "$inside/wanted.$seed" "$inside/got.$seed" || fail "stream $seed has other bytes"
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
