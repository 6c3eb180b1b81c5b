#!/bin/sh
# cuda-libraries.sh TARGET NAME... - copy these libraries to TARGET from wherever the loader, or CUDA's own
# folder, has them.  One that is missing is an error.  Runs in a CUDA base image.
set -eu

target=$1
shift
mkdir -p "$target"
for name in "$@"; do
    found=
    for folder in /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib /usr/lib/x86_64-linux-gnu \
        /usr/lib64 /usr/lib; do
        if [ -e "$folder/$name" ]; then
            found=$folder/$name
            break
        fi
    done
    if [ -z "$found" ]; then
        echo "$0: this base image has no $name" >&2
        exit 1
    fi
    cp -L "$found" "$target/$name"
done
