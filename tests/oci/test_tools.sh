# test_tools.sh - oci-register-model and oci-chat, with a stand-in of OCI's SDK (fake_sdk) and of the platform's edge.
# shellcheck shell=bash disable=SC2154

export FAKE_OCI_LOG=$folder/sdk.log
catalog_options=(--compartment-id C --project-id P --name llama --namespace N --bucket B --object model.zip
    --region us-ashburn-1)

# register SCENARIO [option...]: standard output in $folder/out, the rest in $folder/err.
register() {
    rm -f "$FAKE_OCI_LOG"
    FAKE_OCI_SCENARIO=$1 PYTHONPATH=$here/fake_sdk "$python" "$kit/oci-register-model" --poll 0.01 "${@:2}" \
        >"$folder/out" 2>"$folder/err"
}

# The calls of the SDK, in their order.
calls() {
    grep -o '"call": "[a-z_]*"' "$FAKE_OCI_LOG" | cut -d'"' -f4 | tr '\n' ' '
}

a_model_is_made_filled_and_watched_to_its_end() {
    register succeeds "${catalog_options[@]}" || fail "$(cat "$folder/err")"
    [[ $(cat "$folder/out") == ocid1.datasciencemodel.oc1.iad.new ]] || fail "printed $(cat "$folder/out")"
    [[ $(calls) == 'from_file client create_model export_model_artifact get_work_request get_work_request get_work_request get_work_request ' ]] ||
        fail "$(calls)"
    holds '"compartment_id": "C", "project_id": "P", "display_name": "llama"' "$FAKE_OCI_LOG" || fail "model"
    holds '"artifact_source_type": "ORACLE_OBJECT_STORAGE", "namespace": "N", "source_bucket": "B", "source_object_name": "model.zip", "source_region": "us-ashburn-1"' \
        "$FAKE_OCI_LOG" || fail "source: $(cat "$FAKE_OCI_LOG")"
    holds '\[#####\.*\]  12.5 %  IN_PROGRESS' "$folder/err" || fail "no progress: $(cat "$folder/err")"
    holds '\[########################################\] 100.0 %  SUCCEEDED' "$folder/err" || fail "$(cat "$folder/err")"
}
run a_model_is_made_filled_and_watched_to_its_end

a_failed_work_request_tells_its_errors() {
    local code=0
    register fails "${catalog_options[@]}" || code=$?
    [[ $code -eq 1 ]] || fail "exit code $code"
    [[ ! -s $folder/out ]] || fail "a model was printed"
    holds 'NotFound: no object model.zip' "$folder/err" || fail "$(cat "$folder/err")"
}
run a_failed_work_request_tells_its_errors

a_refused_call_is_told_in_a_line() {
    local code=0
    register refused "${catalog_options[@]}" || code=$?
    [[ $code -eq 1 && $(cat "$folder/err") == '404 NotAuthorizedOrNotFound: Authorization failed' ]] ||
        fail "$code $(cat "$folder/err")"
}
run a_refused_call_is_told_in_a_line

watching_ends_and_says_how_to_go_on() {
    local code=0
    register slow "${catalog_options[@]}" --timeout 0.1 || code=$?
    [[ $code -eq 2 ]] || fail "exit code $code"
    holds 'oci-register-model --work-request ocid1.datascienceworkrequest.oc1.iad.w --model-id ocid1.datasciencemodel' \
        "$folder/err" || fail "$(cat "$folder/err")"
    register succeeds --work-request ocid1.datascienceworkrequest.oc1.iad.w --model-id M || fail "$(cat "$folder/err")"
    [[ $(cat "$folder/out") == M && $(calls) != *create_model* ]] || fail "$(calls)"
}
run watching_ends_and_says_how_to_go_on

missing_inputs_are_named() {
    ! register succeeds --bucket B || fail "it ran"
    holds 'missing: --namespace --object --region --compartment-id --project-id --name' "$folder/err" ||
        fail "$(cat "$folder/err")"
    [[ ! -e $FAKE_OCI_LOG ]] || fail "OCI was asked"
}
run missing_inputs_are_named

every_way_to_be_somebody_is_taken() {
    local auth who
    echo a-token >"$folder/session"
    while read -r auth who; do
        register succeeds "${catalog_options[@]}" --auth "$auth" --config-file "$folder/session" --profile OTHER ||
            fail "$(cat "$folder/err")"
        holds -F "\"who\": \"$who\"" "$FAKE_OCI_LOG" || fail "$auth: $(cat "$FAKE_OCI_LOG")"
    done <<'WAYS'
config T/U/F
security_token ST$a-token key of K
resource_principal resource
instance_principal instance
WAYS
}
run every_way_to_be_somebody_is_taken

# ---- oci-chat: browser -> oci-chat -> edge -> our server; the page comes from the same server ----

wait_for_file() {
    local i
    for ((i = 0; i < 600; i++)); do
        [[ -s $1 ]] && return
        sleep 0.05
    done
    fail "nothing in $1"
}

free_port() {
    "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

begin_chat() {
    rm -f "$folder"/edge* "$folder/chat.log"
    port=$(free_port)
    MODEL=models/stories-demo PORT=$port MODEL_DEPLOYMENT_OCID=x "$bin/llm-init" -- "$bin/llmd" --runtime-dir \
        "$folder/chat" 2>"$folder/server.log" &
    server_pid=$!
    "$bin/llmctl" --runtime-dir "$folder/chat" wait --quiet --timeout 60 || fail "$(cat "$folder/server.log")"
    "$python" "$here/fake_edge.py" "$folder/edge" "$port" &
    edge_pid=$!
    wait_for_file "$folder/edge"
    PYTHONPATH=$here/fake_sdk "$python" "$kit/oci-chat" --endpoint "http://127.0.0.1:$(cat "$folder/edge")/OCID/predict" \
        --page "http://127.0.0.1:$port" --port 0 2>"$folder/chat.log" &
    chat_pid=$!
    wait_for_file "$folder/chat.log"
    chat=$(grep -o 'http://127.0.0.1:[0-9]*' "$folder/chat.log")
}

end_chat() {
    kill "$chat_pid" "$edge_pid" "$server_pid" 2>/dev/null
    wait
}

ask_chat() {
    curl -sS --max-time 60 "$@"
}

the_page_chats_with_a_deployment_by_signed_requests() {
    local body='{"model":"of-the-page","messages":[{"role":"user","content":"Hello"}],"max_tokens":8}'
    trap end_chat EXIT
    begin_chat
    ask_chat "$chat/health" -o /dev/null -w '%{http_code}' | holds 200 || fail "the page's server is not passed on"
    ask_chat "$chat/v1/chat/completions" -d "$body" >"$folder/answer"
    holds '"content":"' "$folder/answer" || fail "$(cat "$folder/answer")"
    holds '"route": "/v1/chat/completions".*":path": "/OCID/predict", ' "$folder/edge.headers" || fail "$(cat "$folder/edge.headers")"
    holds 'Signature version=' "$folder/edge.headers" || fail "it is not signed"
    ! holds of-the-page "$folder/edge.headers" || fail "the page's model is asked of the deployment"
    ask_chat -N "$chat/v1/chat/completions" -d "${body/%\}/,\"stream\":true\}}" >"$folder/answer"
    [[ $(tail -n 2 "$folder/answer") == 'data: [DONE]'* ]] || fail "$(tail -c 300 "$folder/answer")"
    holds '":path": "/OCID/predictWithResponseStream"' "$folder/edge.headers" || fail "$(cat "$folder/edge.headers")"
}
run the_page_chats_with_a_deployment_by_signed_requests

other_sites_cannot_spend_the_credentials() {
    local code
    trap end_chat EXIT
    begin_chat
    code=$(ask_chat "$chat/v1/chat/completions" -H 'Origin: https://evil.example' -d '{}' -o /dev/null -w '%{http_code}')
    [[ $code == 403 ]] || fail "another origin got $code"
    code=$(ask_chat "$chat/v1/chat/completions" -H 'Host: evil.example' -d '{}' -o /dev/null -w '%{http_code}')
    [[ $code == 403 ]] || fail "another host name got $code"
    [[ ! -e $folder/edge.headers ]] || fail "the deployment was asked"
}
run other_sites_cannot_spend_the_credentials
