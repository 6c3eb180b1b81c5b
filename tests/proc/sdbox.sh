#!/bin/bash
# sdbox.sh - a real systemd for tests, in about a second, with nothing to install.
#
#   sdbox.sh start DIR STAGE [ROOT]   boot; STAGE is a tree that is copied over the root inside (units, programs)
#   sdbox.sh run DIR CMD...     run CMD inside
#   sdbox.sh net DIR CMD...     run this host's CMD on the network inside
#   sdbox.sh stop DIR           power off, and remove everything in DIR that start made
#
# This host's own systemd becomes PID 1 of private mount, PID, network, IPC, UTS and cgroup namespaces, over an
# overlay of this host's root, or of ROOT with the systemd there, whose writes go to a tmpfs and vanish, with nothing
# that the host has enabled.  The network inside is a loopback of its own, so fixed ports are safe.  Folders are absolute.
#
# Exit code 77 of start: not root, no systemd, or this kernel does not allow it.  Should the caller die
# without a stop, so does the box: its first process is killed with the process that booted it, which watches
# the caller.
set -eu
export LC_ALL=C

usage() {
    sed -n '3,6p' "$0" >&2
    exit 2
}

[[ $# -ge 2 && $2 == /* ]] || usage
verb=$1 dir=$2
shift 2

cannot() {
    echo "sdbox: $1" >&2
    exit 77
}

# The cgroup2 tree, which may be mounted beside version 1.
cgroup_root() {
    findmnt -n -t cgroup2 -o TARGET | head -1
}

# Inside the new namespaces: build the root, become systemd.
boot_inside() {
    local dir=$1 stage=$2 lower=$3 root=$1/root node
    mount -t tmpfs -o size=2g,mode=755 tmpfs "$dir/up"
    mkdir "$dir/up/upper" "$dir/up/work"
    mount -t overlay -o "lowerdir=$lower,upperdir=$dir/up/upper,workdir=$dir/up/work" overlay "$root"

    # forget what the host has enabled, and what needs hardware
    rm -rf "$root"/etc/systemd/system/*.wants "$root"/etc/systemd/system/*.requires \
        "$root"/lib/systemd/system/multi-user.target.wants "$root"/etc/rc?.d "$root"/etc/init.d/* \
        "$root"/var/log/journal
    : >"$root/etc/fstab"
    for node in systemd-logind.service systemd-networkd.service systemd-timesyncd.service apt-daily.timer; do
        ln -sf /dev/null "$root/etc/systemd/system/$node"
    done
    printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\n' >"$root/etc/systemd/journald.conf"
    cp -a "$stage/." "$root/"

    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for node in null zero full random urandom tty; do
        : >"$root/dev/$node"
        mount --bind "/dev/$node" "$root/dev/$node"
    done
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    : >"$root/dev/console"
    : >"$dir/console.log"
    mount --bind "$dir/console.log" "$root/dev/console"
    mount -t tmpfs -o mode=1777,size=512m tmpfs "$root/dev/shm"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    ln -s /proc/self/fd "$root/dev/fd"
    ln -s fd/0 "$root/dev/stdin"
    ln -s fd/1 "$root/dev/stdout"
    ln -s fd/2 "$root/dev/stderr"

    hostname sdbox
    ip link set lo up
    cd "$root"
    mkdir -p .old
    pivot_root . .old
    umount -l /.old
    echo 5f6b8d5e7c0a4c0e9a1b2c3d4e5f6a7b >/etc/machine-id
    exec env -i container=sdbox PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
        /lib/systemd/systemd --system --unit=multi-user.target --show-status=0
}

# In a cgroup of its own, since systemd takes over the one it starts in.
boot() {
    local cgroup=$1 stage=$2 lower=$3
    echo "$BASHPID" >"$cgroup/cgroup.procs"
    exec setsid unshare --mount --pid --fork --kill-child=KILL --uts --ipc --net --cgroup \
        --propagation private /bin/bash "$0" boot-inside "$dir" "$stage" "$lower" \
        </dev/null >"$dir/boot.log" 2>&1
}

start() {
    local stage=$1 lower=$2 cgroup state='' pid=''
    [[ $(id -u) -eq 0 ]] || cannot 'not root'
    [[ -x $lower/lib/systemd/systemd ]] || cannot 'no systemd here'
    cgroup=$(cgroup_root)/sdbox.$$
    if [[ $cgroup != /sys/* ]] || ! mkdir "$cgroup" 2>/dev/null; then
        cannot 'no cgroup2 tree to write in'
    fi
    mkdir -p "$dir/up" "$dir/root"
    echo "$cgroup" >"$dir/cgroup"
    unshare --mount --pid --fork --uts --ipc --net --cgroup true 2>/dev/null || {
        stop
        cannot 'no namespaces'
    }
    boot "$cgroup" "$stage" "$lower" &
    echo $! >"$dir/unshare.pid"
    for ((i = 0; i < 300; i++)); do
        pid=$(pgrep -o -P "$(<"$dir/unshare.pid")" systemd || true)
        if [[ -n $pid ]]; then
            echo "$pid" >"$dir/init.pid"
            state=$(nsenter -t "$pid" -a systemctl is-system-running 2>/dev/null || true)
            [[ $state != running && $state != degraded ]] || return 0
        fi
        kill -0 "$(<"$dir/unshare.pid")" 2>/dev/null || break
        sleep 0.05
    done
    cat "$dir/boot.log" >&2
    stop
    cannot "it does not boot (${state:-no systemd})"
}

stop() {
    local cgroup=''
    [[ ! -s $dir/init.pid ]] || kill -s RTMIN+4 "$(<"$dir/init.pid")" 2>/dev/null || true # power off
    if [[ -s $dir/unshare.pid ]]; then
        for ((i = 0; i < 200; i++)); do
            kill -0 "$(<"$dir/unshare.pid")" 2>/dev/null || break
            sleep 0.05
        done
        # unshare ignores SIGTERM; its child dies with it
        kill -KILL "$(<"$dir/unshare.pid")" 2>/dev/null || true
    fi
    [[ ! -s $dir/cgroup ]] || cgroup=$(<"$dir/cgroup")
    for ((i = 0; i < 40; i++)); do # a cgroup goes a moment after its last process
        [[ -n $cgroup && -d $cgroup ]] || break
        find "$cgroup" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        sleep 0.05
    done
    rm -rf "$dir/up" "$dir/root" "$dir/cgroup" "$dir/unshare.pid" "$dir/init.pid" "$dir/boot.log" "$dir/console.log"
}

case $verb in
start) start "$1" "${2:-/}" ;;
run) exec nsenter -t "$(<"$dir/init.pid")" -a "$@" ;;
net) exec nsenter -t "$(<"$dir/init.pid")" -n "$@" ;;
stop) stop ;;
boot-inside) boot_inside "$dir" "$1" "$2" ;;
*) usage ;;
esac
