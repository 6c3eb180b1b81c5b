# engine.sh - buildah and podman on stores of our own below $folder.  Sourced; needs $folder.
#
# Containers are named llmd-<word>; each test starts what it wants and engine_stop_all ends what is left.
# shellcheck shell=bash disable=SC2034,SC2154

store=(--root "$folder/store" --runroot "$folder/run" --storage-driver overlay)
image=localhost/llmd

# An overlay cannot be mounted everywhere (on another overlay); vfs copies instead.
engine_choose_driver() {
    mkdir -p "$folder"/{lower,upper,work,merged}
    if mount -t overlay -o "lowerdir=$folder/lower,upperdir=$folder/upper,workdir=$folder/work" overlay \
        "$folder/merged" 2>/dev/null; then
        umount "$folder/merged"
    else
        store[5]=vfs
    fi
}
engine_choose_driver

engine_buildah() {
    buildah "${store[@]}" "$@"
}

engine_podman() {
    podman "${store[@]}" --cgroup-manager cgroupfs --events-backend file --runtime runc "$@" 2> >(
        grep -v 'systemd connection' >&2
    )
}

engine_bud() {
    nice buildah "${store[@]}" bud --isolation chroot --network host --format docker "$@"
}

# engine_make_base [--full] - localhost/debian, from this machine's own sources of packages.  The small one has
# what the images need and no apt; the full one has apt, as debian:bookworm-slim has, and nothing of ours.
# Its archive is kept in build/container for the next run.
engine_make_base() {
    local variant=essential include archive
    include=$(docker/packages.sh runtime --list | tr ' ' ',')
    if [[ ${1:-} == --full ]]; then
        variant=apt include=ca-certificates
    fi
    archive=build/container/debian-$variant.tar
    mkdir -p build/container "$folder/base"
    if [[ ! -s $archive || docker/packages.sh -nt $archive ]]; then
        engine_bootstrap "$variant" "$include" "$folder/base/new.tar" || return 1
        mv "$folder/base/new.tar" "$archive"
    fi
    ln "$archive" "$folder/base/base.tar" 2>/dev/null || cp "$archive" "$folder/base/base.tar"
    printf 'FROM scratch\nADD base.tar /\n' >"$folder/base/Containerfile"
    engine_bud -t localhost/debian "$folder/base" || return 1
    rm "$folder/base/base.tar"
}

engine_bootstrap() {
    local variant=$1 include=$2 archive=$3 file sources=()
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [[ -s $file ]] && sources+=("$file")
    done
    nice mmdebstrap --variant="$variant" --include="$include" --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        bookworm "$archive" "${sources[@]}"
}

engine_import_programs() {
    mkdir "$folder/programs"
    docker/stage-programs.sh "$1" "$folder/programs/out" || return 1
    printf 'FROM scratch\nCOPY out /out\n' >"$folder/programs/Containerfile"
    engine_bud -t localhost/llmd-programs "$folder/programs"
}

# engine_build TARGET [--full] [option of buildah...]
engine_build() {
    local target=$1 programs=(--build-arg PROGRAMS=localhost/llmd-programs)
    shift
    if [[ ${1:-} == --full ]]; then
        programs=()
    fi
    [[ ${1-x} != "" && ${1-x} != --full ]] || shift
    engine_bud --build-arg BASE=localhost/debian "${programs[@]}" \
        --build-arg REVISION=tested "$@" -f docker/Dockerfile --target "$target" -t "$image:$target" .
}

# engine_start WORD [option of podman run...] [-- argument of llmd...] - run image cpu; does not wait.
engine_start() {
    local name=llmd-$1 options=()
    shift
    while [[ $# -gt 0 && $1 != -- ]]; do
        options+=("$1")
        shift
    done
    [[ $# -eq 0 ]] || shift
    engine_podman run -d --name "$name" --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 \
        "${options[@]}" "${target_image:-$image:cpu}" "$@" >/dev/null
}

# The tightest cage there is: no network but its own loopback, nothing to write but /run, no capability, a user
# that nobody knows, and hardly any /dev/shm.
caged=(--network none --read-only --read-only-tmpfs=false --tmpfs /run:size=1m --cap-drop=all
    --security-opt no-new-privileges --user 123456:0 --shm-size 1m --pids-limit 128)

engine_exec() {
    local name=llmd-$1
    shift
    engine_podman exec "$name" "$@"
}

# engine_ask WORD PATH [BODY] - the answer of a container's server, asked inside by the image's curl.
engine_ask() {
    if [[ $# -gt 2 ]]; then
        engine_exec "$1" curl -sS --max-time 60 -H 'Content-Type: application/json' -d "$3" \
            "http://127.0.0.1:${port:-8080}$2"
    else
        engine_exec "$1" curl -sS --max-time 60 "http://127.0.0.1:${port:-8080}$2"
    fi
}

engine_wait_ready() {
    engine_exec "$1" llmctl wait --quiet --timeout 60
}

# engine_pid WORD PROCESS - the pid inside; PROCESS as `llmctl status` names it.
engine_pid() {
    engine_exec "$1" llmctl status --json |
        python3 -c 'import json, sys
print(next(p["pid"] for p in json.load(sys.stdin)["processes"] if p["name"] == sys.argv[1]))' "$2"
}

# engine_host_pid WORD PID - the pid on this machine of the one that has PID inside: what is done to it is done at
# once, where an exec may take seconds to begin.
engine_host_pid() {
    local init space status pids
    init=$(engine_init_pid "$1") && space=$(readlink "/proc/$init/ns/pid") || return 1
    for status in /proc/[0-9]*/status; do
        [[ $(readlink "${status%/*}/ns/pid") == "$space" ]] || continue
        pids=$(grep '^NSpid:' "$status" 2>/dev/null) || continue
        if [[ ${pids##*[[:space:]]} == "$2" ]]; then
            status=${status%/*}
            echo "${status##*/}"
            return
        fi
    done
    return 1
}

# engine_init_pid WORD - of its first process, on this machine; /proc/PID/root are its files.
engine_init_pid() {
    engine_podman inspect --format '{{.State.Pid}}' "llmd-$1"
}

engine_exit_code() {
    engine_podman wait "llmd-$1"
}

engine_logs() {
    engine_podman logs "llmd-$1" 2>&1
}

engine_end() {
    engine_podman rm -f -t 0 "llmd-$1" >/dev/null 2>&1 || true
}

engine_remove() {
    local tree
    [[ -d $folder/store ]] && engine_podman rm -f -t 0 -a >/dev/null 2>&1
    # podman's cleanup of the last container may still be on its way
    awk -v below="$folder/" 'index($2, below) == 1 { print $2 }' /proc/mounts | tac | xargs -r umount -l
    rm -rf "$folder"
    for tree in /sys/fs/cgroup/*/libpod_parent /sys/fs/cgroup/libpod_parent; do
        rmdir "$tree" 2>/dev/null
    done
}
