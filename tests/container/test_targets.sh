# test_targets.sh - the other targets.  NVIDIA's images are not at hand: stand-ins with files of the names that CUDA's
# libraries and its compiler have take their place, which shows that the stages and instructions are right, not that
# anything runs on a GPU.
# shellcheck shell=bash disable=SC2154

# make_cuda_base VERSION NAME... - localhost/cuda<VERSION> with these libraries, as links the way CUDA has them.
make_cuda_base() {
    local version=$1 name context=$folder/cuda$1
    shift
    mkdir -p "$context/lib64"
    for name in "$@"; do
        echo "stand-in of $name" >"$context/lib64/$name.0.1"
        ln -s "$name.0.1" "$context/lib64/$name"
    done
    printf 'FROM localhost/debian\nCOPY lib64/ /usr/local/cuda/lib64/\n' >"$context/Containerfile"
    engine_bud -q -t "localhost/cuda$version" "$context" >/dev/null
}

# cuda_target_has_its_libraries VERSION
cuda_target_has_its_libraries() {
    local version=$1 name
    make_cuda_base "$version" "libcublas.so.$version" "libcublasLt.so.$version" libnccl.so.2 || return 1
    engine_build "cuda$version" --build-arg "CUDA${version}_BASE=localhost/cuda$version" >"$folder/cuda.log" 2>&1 ||
        fail "$(tail -20 "$folder/cuda.log")"
    engine_podman inspect "$image:cuda$version" --format '{{.Config.Env}} {{.User}} {{.Config.Entrypoint}}' \
        >"$folder/cuda.env"
    holds 'NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility.*65532.*llm-init' \
        "$folder/cuda.env" || fail "$(cat "$folder/cuda.env")"
    target_image=$image:cuda$version engine_start "cuda$version" "${caged[@]}" || return 1
    engine_wait_ready "cuda$version" || fail "$(engine_logs "cuda$version")"
    for name in "libcublas.so.$version" "libcublasLt.so.$version" libnccl.so.2; do
        engine_exec "cuda$version" sh -c "read -r line <'/usr/lib/$name' && [ \"\$line\" = 'stand-in of $name' ]" ||
            fail "no $name"
    done
    engine_end "cuda$version"
}

the_cuda12_target_has_its_libraries_and_serves() {
    cuda_target_has_its_libraries 12
}
run the_cuda12_target_has_its_libraries_and_serves

the_cuda13_target_has_its_libraries_and_serves() {
    cuda_target_has_its_libraries 13
}
run the_cuda13_target_has_its_libraries_and_serves

a_cuda_base_without_nccl_ends_the_build() {
    make_cuda_base 99 libcublas.so.12 libcublasLt.so.12 || return 1
    ! engine_build cuda12 --build-arg CUDA12_BASE=localhost/cuda99 >"$folder/cuda.log" 2>&1 ||
        fail "it was built"
    holds 'no libnccl.so.2' "$folder/cuda.log" || fail "$(tail -5 "$folder/cuda.log")"
}
run a_cuda_base_without_nccl_ends_the_build

# localhost/cuda-devel, with the folders and links of NVIDIA's.
make_cuda_devel() {
    local context=$folder/cuda-devel cuda=$folder/cuda-devel/local/cuda-99.1
    mkdir -p "$cuda"/{bin,lib64,nvvm/bin,targets/x86_64-linux/include}
    ln -s cuda-99.1 "$context/local/cuda"
    ln -s targets/x86_64-linux/include "$cuda/include"
    echo '#define STAND_IN' >"$cuda/targets/x86_64-linux/include/cuda.h"
    printf '#!/bin/sh\necho stand-in\n' | install -m 755 /dev/stdin "$cuda/bin/nvcc"
    touch "$cuda/nvvm/bin/cicc" "$cuda/lib64/libcudart_static.a"
    printf 'FROM localhost/debian\nCOPY local/ /usr/local/\n' >"$context/Containerfile"
    engine_bud -q -t localhost/cuda-devel "$context" >/dev/null
}

has_compiler() {
    [[ $("$root/cuda/bin/nvcc") == stand-in && -e $root/cuda/nvvm/bin/cicc ]] || fail "no nvcc, or half of it"
    [[ -s $root/cuda/include/cuda.h && -s $root/cuda/targets/x86_64-linux/include/cuda.h ]] || fail "no headers"
    [[ ! -e $root/cuda/lib64 ]] || fail "libraries, which nothing is linked with"
}

the_compiler_is_taken_from_the_image_that_is_named() {
    make_cuda_devel || return 1
    engine_build cuda-compiler --build-arg CUDA_IMAGE=localhost/cuda-devel >"$folder/cuda.log" 2>&1 ||
        fail "$(tail -20 "$folder/cuda.log")"
    image_of=$image:cuda-compiler with_root has_compiler
}
run the_compiler_is_taken_from_the_image_that_is_named

has_no_compiler() {
    [[ -d $root/cuda && -z $(ls -A "$root/cuda") ]] || fail "found $(ls "$root/cuda")"
}

kernels_are_left_out_where_no_image_is_named() {
    engine_build cuda-compiler >"$folder/cuda.log" 2>&1 || fail "$(tail -20 "$folder/cuda.log")"
    holds 'kernels for GPUs are left out' "$folder/cuda.log" || fail "$(tail -5 "$folder/cuda.log")"
    image_of=$image:cuda-compiler with_root has_no_compiler
}
run kernels_are_left_out_where_no_image_is_named

an_image_without_nvcc_ends_the_build() {
    ! engine_build cuda-compiler --build-arg CUDA_IMAGE=localhost/debian >"$folder/cuda.log" 2>&1 ||
        fail "it was built"
    holds "'localhost/debian' has no /usr/local/cuda/bin/nvcc" "$folder/cuda.log" ||
        fail "$(tail -5 "$folder/cuda.log")"
}
run an_image_without_nvcc_ends_the_build

# Its debuggers come from Debian's archive, so only the full check builds it.
the_debug_target_has_symbols_and_debuggers() {
    engine_build debug >"$folder/debug.log" 2>&1 || fail "$(tail -20 "$folder/debug.log")"
    target_image=$image:debug engine_start debug --network none || return 1
    engine_wait_ready debug || fail "$(engine_logs debug)"
    engine_exec debug gdb -batch -ex 'info functions ^main$' /usr/bin/llm-worker 2>&1 | holds 'main.c' ||
        fail "gdb finds no symbols"
    engine_exec debug bash -c 'strace -V >/dev/null && ps -e >/dev/null' || fail "no strace or ps"
    engine_end debug
}
[[ $full != --full ]] || run the_debug_target_has_symbols_and_debuggers

# The settings of the two kinds of image are written twice; they must not drift apart.
settings_of() {
    awk -v stage="AS $1\$" '$0 ~ "^FROM" { on = $0 ~ stage } on' docker/Dockerfile |
        grep -v '^FROM\|^COPY\|^RUN\|^#\|PATH=\|LABEL\|^ARG\|image\.\|/usr/bin/\|mkdir' | sed 's/^ENV */    /'
}

debug_is_set_up_like_the_others() {
    diff <(settings_of runtime) <(settings_of debug)
}
run debug_is_set_up_like_the_others
