# test_contract.sh - oci-byoc-check: our programs pass it, and it tells what is wrong with others.
# shellcheck shell=bash disable=SC2154

# On a busy machine a stream may need longer than the drain that users get by default.
byoc_check() {
    "$python" "$kit/oci-byoc-check" --model models/stories-demo --command "$1" "${@:2}" \
        --env LLMD_DRAIN_TIMEOUT_S=55 >"$folder/byoc" 2>&1
}

our_programs_pass_as() {
    mkdir -p "$folder/run"
    byoc_check "$bin/llm-init -- $bin/llmd --runtime-dir $folder/run/$1" --mode "$1" || fail "$(cat "$folder/byoc")"
    ! holds 'the stream had ended' "$folder/byoc" || fail "SIGTERM met no stream"
    tail -1 "$folder/byoc"
}

our_programs_pass_as_the_vllm_container() {
    our_programs_pass_as vllm
}
run our_programs_pass_as_the_vllm_container

our_programs_pass_as_the_tgi_container() {
    our_programs_pass_as tgi
}
run our_programs_pass_as_the_tgi_container

our_programs_pass_as_an_openai_server() {
    our_programs_pass_as openai
}
run our_programs_pass_as_an_openai_server

# Each way of breaking the contract that broken_server.py knows, and the check that must see it.
each_broken_promise_is_found() {
    local way wanted
    while read -r way wanted; do
        ! byoc_check "$python $here/broken_server.py $way" --start-timeout 10 || fail "$way was passed"
        holds "^FAIL $wanted" "$folder/byoc" || fail "$way: no FAIL $wanted in: $(cat "$folder/byoc")"
    done <<'WAYS'
exits becomes_healthy_within_ten_minutes
unhealthy becomes_healthy_within_ten_minutes
array predict_takes_inputs_and_parameters
no_alias named_health_path_answers
small_bodies bodies_of_10_MB_are_taken
plain_logs logs_are_one_object_a_line
code_1 sigterm_lets_a_stream_finish_and_ends_with_0
cuts_streams sigterm_lets_a_stream_finish_and_ends_with_0
no_route route_header_names_another_route
WAYS
}
run each_broken_promise_is_found

environments_that_the_platform_refuses_are_refused() {
    local setting
    for setting in MODEL_DEPLOYMENT_OCID=x 1ST=x A=x ENDS_=x "LONG=$(printf '%02048d' 0)" \
        A_NAME_OF_MORE_THAN_31_CHARACTERS=x; do
        ! byoc_check true --env "$setting" || fail "${setting:0:40} was taken"
        holds 'would refuse this environment' "$folder/byoc" || fail "$(cat "$folder/byoc")"
    done
}
run environments_that_the_platform_refuses_are_refused
