#!/bin/bash
# packages.sh build|image|deb|test|systemd|container|oci|web|fuzz - install the Debian packages that are missing for it.
#
# Asks dpkg first, which takes milliseconds; apt-get runs only when something is missing, with sudo when
# we are not root.  On a system without apt-get it says what is wanted and goes on: cmake then tells
# what it cannot find.
set -euo pipefail

build=(
    gcc libc6-dev cmake ninja-build pkg-config curl
    libcurl4-openssl-dev libevent-dev libjansson-dev libpcre2-dev libprotobuf-c-dev libsodium-dev
    libssl-dev libsystemd-dev libutf8proc-dev libxxhash-dev libyaml-dev libzmq3-dev
    protobuf-c-compiler protobuf-compiler systemtap-sdt-dev util-linux
)
# nvcc, where it is, has the host's C++ compiler read the kernels.
if command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]]; then
    build+=(g++)
fi
deb=(dpkg-dev)
container=(binutils buildah mmdebstrap podman python3 runc)
oci=(make python3 python3-requests python3-yaml)
tests=(g++ libcmocka-dev prometheus jq systemd mandoc man-db zsh fish "${container[@]}" "${oci[@]}")
systemd=(lintian)
# Bundle the web pages.  Node of another source than Debian's brings its own npm, and conflicts with Debian's.
pages=()
command -v npm >/dev/null || pages=(nodejs npm)
# For the browser tests.
web=(chromium fonts-dejavu-core "${pages[@]}")
fuzz=(clang-14 libclang-rt-14-dev)

case ${1:-} in
build) wanted=("${build[@]}") ;;
image) wanted=("${build[@]}" "${pages[@]}") ;;
deb) wanted=("${build[@]}" "${pages[@]}" "${deb[@]}") ;;
test) wanted=("${build[@]}" "${deb[@]}" "${tests[@]}") ;;
systemd) wanted=("${build[@]}" "${deb[@]}" "${tests[@]}" "${systemd[@]}") ;;
container) wanted=("${build[@]}" "${container[@]}") ;;
web) wanted=("${web[@]}") ;;
oci) wanted=("${build[@]}" "${oci[@]}") ;;
fuzz) wanted=("${build[@]}" "${tests[@]}" "${fuzz[@]}") ;;
*)
    echo "usage: $0 build|image|deb|test|systemd|container|oci|web|fuzz" >&2
    exit 2
    ;;
esac

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "No apt-get here. The equivalents of these Debian packages are needed: ${wanted[*]}" >&2
    exit 0
fi

# One line per installed package; what has no such line is missing.
installed=$(dpkg-query -W -f='${db:Status-Abbrev}${Package}\n' "${wanted[@]}" 2>/dev/null |
    sed -n 's/^ii *//p' | tr '\n' ' ') || true
missing=()
for package in "${wanted[@]}"; do
    [[ " $installed " == *" $package "* ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

as_root=()
if [[ $(id -u) -ne 0 ]]; then
    if ! command -v sudo >/dev/null; then
        echo "These packages are missing, and neither root nor sudo is here to install them:" >&2
        echo "  ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi

install_missing() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}"
}

echo "Installing packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The lists of packages on a machine are often there and fresh enough; when not, get them.
if ! install_missing >"$log" 2>&1 </dev/null; then
    if ! { "${as_root[@]}" apt-get update -q && install_missing; } >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        exit 1
    fi
fi
