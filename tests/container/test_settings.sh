# test_settings.sh - the environment that deployments of the OCI sample bring.
# shellcheck shell=bash disable=SC2154

mounted=(-v "$PWD/models:/opt/ds/model/deployed_model:ro")

a_mounted_model_hides_the_demo_and_MODEL_names_a_folder_of_it() {
    engine_start mount "${caged[@]}" "${mounted[@]}" -e MODEL=stories-demo || return 1
    engine_wait_ready mount || fail "$(engine_logs mount)"
    engine_ask mount /v1/models | holds '"id":"stories-demo"' || fail "$(engine_ask mount /v1/models)"
    engine_end mount
}
run a_mounted_model_hides_the_demo_and_MODEL_names_a_folder_of_it

PARAMS_are_launcher_options() {
    engine_start params "${caged[@]}" \
        -e PARAMS='--max-batch-prefill-tokens 1024 --max-total-tokens 128 --max-best-of 3 --num-shard 2' || return 1
    engine_wait_ready params || fail "$(engine_logs params)"
    engine_ask params /info | holds '"max_best_of":3.*"max_total_tokens":128' || fail "$(engine_ask params /info)"
    engine_pid params "worker 0.1" >/dev/null || fail "--num-shard 2 made no second rank"
    engine_end params
}
run PARAMS_are_launcher_options

the_platforms_variables_are_obeyed_or_said_to_be_ignored() {
    engine_start oci "${caged[@]}" -e MODEL=/opt/ds/model/deployed_model -e TENSOR_PARALLELISM=2 \
        -e TOKEN_FILE=/opt/ds/model/deployed_model/token -e WEB_CONCURRENCY=10 -e STORAGE_SIZE_IN_GB=950 \
        -e MODEL_DEPLOY_PREDICT_ENDPOINT=/generate -e MODEL_DEPLOY_HEALTH_ENDPOINT=/status \
        -e MODEL_DEPLOYMENT_OCID=ocid1.datasciencemodeldeployment.oc1.iad.test || return 1
    engine_wait_ready oci || fail "$(engine_logs oci)"
    [[ $(engine_exec oci curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/status) == 200 ]] ||
        fail "/status does not answer"
    engine_ask oci /predict '{"inputs":"Once upon a time","parameters":{"max_new_tokens":4,"details":true}}' |
        holds '"details":{' || fail "/predict does not answer as /generate"
    engine_logs oci | holds '"level":"warning".*TOKEN_FILE' || fail "TOKEN_FILE is not warned of"
    engine_pid oci "worker 0.1" >/dev/null || fail "TENSOR_PARALLELISM=2 made no second rank"
    engine_end oci
}
run the_platforms_variables_are_obeyed_or_said_to_be_ignored

another_port_moves_the_health_check_too() {
    engine_start port "${caged[@]}" -e PORT=5001 || return 1
    engine_wait_ready port || return 1
    port=5001 engine_ask port /predict '{"inputs":"Once"}' | holds generated_text || fail "nothing on 5001"
    is_healthy port || fail "the health check fails"
    engine_end port
}
run another_port_moves_the_health_check_too

the_image_keeps_the_platforms_contract() {
    python3 deploy/oci/oci-byoc-check "$image:cpu" --model models/stories-demo --host-network \
        --engine "podman ${store[*]} --cgroup-manager cgroupfs --events-backend file --runtime runc" \
        --engine-option '--ulimit nofile=4096:4096 --ulimit nproc=4096:4096 --no-healthcheck' \
        --env LLMD_DRAIN_TIMEOUT_S=55 >"$folder/byoc" 2>&1 || fail "$(cat "$folder/byoc")"
    holds '^PASS curl_inside_sees_it_healthy' "$folder/byoc" || fail "no probe inside"
}
run the_image_keeps_the_platforms_contract
