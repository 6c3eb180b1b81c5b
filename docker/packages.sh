#!/bin/sh
# packages.sh runtime|debug - Debian packages that the programs need to run, or that help to look into them.
#
# Runs as root in a stage of the Dockerfile.  `packages.sh runtime --list` prints the names.
set -eu

runtime="curl dash libcurl4 libevent-2.1-7 libevent-pthreads-2.1-7 libjansson4 libpcre2-8-0 libprotobuf-c1
    libsodium23 libsystemd0 libutf8proc2 libxxhash0 libyaml-0-2 libzmq5"
debug="gdb iproute2 less procps strace"

case ${1:-} in
runtime) wanted=$runtime ;;
debug) wanted=$debug ;;
*)
    echo "usage: $0 runtime|debug [--list]" >&2
    exit 2
    ;;
esac
if [ "${2:-}" = --list ]; then
    # shellcheck disable=SC2086 # a list of words
    echo $wanted
    exit 0
fi

# What is all there needs no lists; a base image may come with it.
# shellcheck disable=SC2086
if ! dpkg-query -W $wanted >/dev/null 2>&1; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $wanted
    rm -rf /var/lib/apt/lists/*
fi
