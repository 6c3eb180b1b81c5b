# test_makefile.sh - the sample's targets and variables, with an engine that notes its arguments; the YAML files.
# shellcheck shell=bash disable=SC2154

cat >"$folder/engine" <<'ENGINE'
#!/bin/sh
# One word a line; words of one call end with an empty line.
printf '%s\n' "$@" '' >>"$ENGINE_LOG"
ENGINE
chmod +x "$folder/engine"
export ENGINE_LOG=$folder/engine.log

kit_make() {
    rm -f "$ENGINE_LOG"
    make --no-print-directory -C "$kit" CONTAINER_ENGINE="$folder/engine" "$@" >"$folder/make.log" 2>&1
}

# The engine was given these words, one after the other.
was_given() {
    local words
    words=$(printf '%s\n' "$@")
    [[ $'\n'$(cat "$ENGINE_LOG")$'\n' == *$'\n'"$words"$'\n'* ]] || fail "no '$*' in: $(tr '\n' ' ' <"$ENGINE_LOG")"
}

build_names_image_and_target() {
    local kind
    for kind in tgi vllm; do
        kit_make "build.$kind" TENANCY_NAME=acme REGION_KEY=iad || fail "$(cat "$folder/make.log")"
        was_given build
        was_given -f "$PWD/docker/Dockerfile" --target cpu -t "iad.ocir.io/acme/llmd-$kind:0.1.0" "$PWD"
    done
    kit_make build.tgi TARGET=cuda12 IMAGE_TAG=7 || fail "$(cat "$folder/make.log")"
    was_given --target cuda12 -t localhost/llmd-tgi:7
}
run build_names_image_and_target

run_hands_the_variables_on() {
    kit_make run.vllm MODEL_DIR=/data/m MODEL=sub PARAMS='--max-num-seqs 8 --seed 1' TENSOR_PARALLELISM=2 PORT=9000 ||
        fail "$(cat "$folder/make.log")"
    was_given -p 127.0.0.1:9000:9000 -e PORT=9000 -e MODEL=sub -e 'PARAMS=--max-num-seqs 8 --seed 1' \
        -e TENSOR_PARALLELISM=2 -v /data/m:/opt/ds/model/deployed_model:ro localhost/llmd-vllm:0.1.0
    kit_make run.tgi || fail "$(cat "$folder/make.log")"
    was_given -e MODEL_DEPLOY_PREDICT_ENDPOINT=/generate localhost/llmd-tgi:0.1.0
    kit_make run.tgi.oci || fail "$(cat "$folder/make.log")"
    was_given -e MODEL_DEPLOY_PREDICT_ENDPOINT=/generate localhost/llmd-tgi:0.1.0
    kit_make run.vllm TARGET=cuda13 || fail "$(cat "$folder/make.log")"
    was_given --gpus all
}
run run_hands_the_variables_on

a_token_file_is_mounted_as_the_sample_does() {
    echo secret >"$folder/token"
    kit_make run.tgi TOKEN="$folder/token" || fail "$(cat "$folder/make.log")"
    was_given -e TOKEN_FILE=/opt/ds/model/deployed_model/token -v "$folder/token:/opt/ds/model/deployed_model/token:ro"
    ! holds secret "$ENGINE_LOG" || fail "the token itself is on a command line"
}
run a_token_file_is_mounted_as_the_sample_does

shell_stop_and_rm_touch_our_containers_only() {
    kit_make shell.vllm || fail "$(cat "$folder/make.log")"
    was_given --entrypoint sh localhost/llmd-vllm:0.1.0
    kit_make stop.tgi || fail "$(cat "$folder/make.log")"
    was_given stop -t 60 llmd-tgi
    kit_make rm || fail "$(cat "$folder/make.log")"
    [[ $(tr '\n' ' ' <"$ENGINE_LOG") == 'rm llmd-tgi  rm llmd-vllm  ' ]] || fail "$(cat "$ENGINE_LOG")"
}
run shell_stop_and_rm_touch_our_containers_only

push_wants_tenancy_and_region() {
    ! kit_make push.vllm TENANCY_NAME= REGION_KEY=iad || fail "pushed without a tenancy"
    holds 'TENANCY_NAME is not set' "$folder/make.log" || fail "$(cat "$folder/make.log")"
    ! kit_make push.vllm TENANCY_NAME=acme REGION_KEY= || fail "pushed without a region"
    [[ ! -e $ENGINE_LOG ]] || fail "the engine was called"
    kit_make push.vllm TENANCY_NAME=acme REGION_KEY=fra || fail "$(cat "$folder/make.log")"
    was_given push fra.ocir.io/acme/llmd-vllm:0.1.0
}
run push_wants_tenancy_and_region

a_hub_id_is_not_downloaded_and_that_is_said() {
    ! kit_make run.tgi.hf MODEL=meta-llama/Llama-2-7b-chat-hf || fail "it ran"
    holds 'fetch the model first' "$folder/make.log" || fail "$(cat "$folder/make.log")"
}
run a_hub_id_is_not_downloaded_and_that_is_said

deployment_files_have_what_ads_and_the_platform_want() {
    "$python" "$here/check_yaml.py" "$kit"
}
run deployment_files_have_what_ads_and_the_platform_want

# Every command and file that a guide names is there.
guides_name_what_there_is() {
    local target file
    # shellcheck disable=SC2013 # words without blanks
    for target in $(grep -ho 'make [a-z]*\.\(tgi\|vllm\)' "$kit"/*.md README.md | sort -u | cut -d' ' -f2); do
        make -n -C "$kit" "$target" TENANCY_NAME=a REGION_KEY=b >/dev/null 2>&1 || fail "there is no target $target"
    done
    for file in $(grep -ho '](\([^)#:]*\))' "$kit"/*.md docker/README.md | tr -d ']()'); do
        [[ -e $kit/$file || -e docker/$file ]] || fail "there is no $file"
    done
}
run guides_name_what_there_is
