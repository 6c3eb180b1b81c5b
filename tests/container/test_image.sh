# test_image.sh - what is in the image cpu, and what it says of itself.
# shellcheck shell=bash disable=SC2154

# Kernels for GPUs, which the worker embeds where nvcc was found, come on top.
# shellcheck disable=SC2154 # bin: check.sh
KERNELS_BYTES=$(cat "$bin"/../gpu-worker/cuda/*.fatbin 2>/dev/null | wc -c)
SIZE_MAX_BYTES=$((40000000 + KERNELS_BYTES))

# Mounts the root of the image cpu, or $image_of, and runs "$@" with it in $root.
with_root() {
    local box root code=0
    box=$(engine_buildah from --pull-never "${image_of:-$image:cpu}") || return 1
    root=$(engine_buildah mount "$box") || return 1
    root=$root "$@" || code=$?
    engine_buildah rm "$box" >/dev/null
    return $code
}

count_bytes() {
    find "$root" -type f -printf '%i %s\n' | sort -u | awk '{ sum += $2 } END { print sum }'
}

image_is_smaller_than_40_MB_without_kernels_for_gpus() {
    local bytes
    bytes=$(with_root count_bytes)
    echo "    $bytes bytes in files"
    [[ $bytes -gt 20000000 && $bytes -lt $SIZE_MAX_BYTES ]] || fail "wanted less than $SIZE_MAX_BYTES"
}
run image_is_smaller_than_40_MB_without_kernels_for_gpus

find_loose_files() {
    find "$root" -xdev \( -perm /6000 -o -type f -perm /022 -o ! -user root \) -print
    find "$root" -xdev -type d -perm /022 ! -path "$root/run" ! -path "$root/tmp" \
        ! -path "$root/home/datascience" ! -path "$root/var/cache/llmd" -print
}

nothing_in_it_can_be_written_or_raises_privileges() {
    local loose
    loose=$(with_root find_loose_files)
    [[ -z $loose ]] || fail "found $loose"
}
run nothing_in_it_can_be_written_or_raises_privileges

has_records() {
    local file
    [[ $(find "$root/var/lib/dpkg/status.d" -type f | wc -l) -gt 20 ]] || fail "packages are not recorded"
    for file in "$root"/var/lib/dpkg/status.d/*; do
        holds '^Version: ' "$file" || fail "$file has no version"
    done
    zcat "$root/usr/share/doc/llmd/licences-of-libraries.gz" | holds '==== libzmq5 ====' || fail "no licences"
    [[ ! -e $root/usr/bin/apt-get && ! -e $root/usr/bin/dpkg ]] || fail "there is a package manager"
}

packages_and_licences_are_told() {
    with_root has_records
}
run packages_and_licences_are_told

image_says_how_it_is_run() {
    local told
    told=$(engine_podman inspect "$image:cpu" --format \
        '{{.User}} {{.Config.Entrypoint}} {{.Config.ExposedPorts}} {{.Config.StopSignal}} {{.HealthCheck}}')
    [[ $told == '65532:65532 [llm-init -- llmd] map[8080/tcp:{}] SIGTERM {[CMD llmctl wait --quiet --timeout 2]'* ]] ||
        fail "$told"
}
run image_says_how_it_is_run

image_has_the_labels() {
    local label labels
    labels=$(engine_podman inspect "$image:cpu" --format '{{json .Labels}}')
    for label in title description version licenses revision; do
        [[ $labels == *"\"org.opencontainers.image.$label\":\""?* ]] || fail "no $label in $labels"
    done
    [[ $labels == *'revision":"tested"'* ]] || fail "the revision given to the build is not there: $labels"
}
run image_has_the_labels

every_program_finds_its_libraries() {
    local program
    for program in llm-init llmd llm-gateway llm-worker llmctl curl; do
        engine_podman run --rm --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 --no-healthcheck --network none \
            --entrypoint "$program" "$image:cpu" --version >"$folder/version" 2>&1 || true
        ! holds 'cannot open shared object\|not found\|no such file' "$folder/version" ||
            fail "$program: $(cat "$folder/version")"
        [[ -s $folder/version ]] || fail "$program says nothing"
    done
}
run every_program_finds_its_libraries

# What is sent to the builder is less than the repository (.dockerignore); here it is not compiled, but looked at.
configure_from_root() {
    cmake -S "$root/src" -B "$folder/configured" -G Ninja -DCMAKE_BUILD_TYPE=Release -DLLMD_TESTS=OFF || return 1
    ninja -C "$folder/configured" -n programs
}

the_build_context_has_what_the_programs_are_made_of() {
    printf 'FROM scratch\nCOPY . /src\n' >"$folder/Context"
    engine_bud -q -f "$folder/Context" -t localhost/llmd-context . >/dev/null || return 1
    image_of=localhost/llmd-context with_root configure_from_root >"$folder/configure.log" 2>&1 ||
        fail "$(tail -5 "$folder/configure.log")"
}
run the_build_context_has_what_the_programs_are_made_of
