#!/bin/sh
# cuda-compiler.sh IMAGE TARGET - copy nvcc, and what it wants to compile kernels, from /usr/local/cuda to TARGET.
#
# Runs in the image of the Dockerfile's argument CUDA_IMAGE.  IMAGE "": none was named, TARGET stays empty, and the
# kernels are left out.  Links are kept: CUDA's include is a folder, or a link to one below targets/.
set -eu

image=$1 target=$2
mkdir -p "$target"
if [ -z "$image" ]; then
    echo "No CUDA_IMAGE: kernels for GPUs are left out, and the programs compute on the CPU."
    exit
fi
if [ ! -x /usr/local/cuda/bin/nvcc ]; then
    echo "$0: the image '$image' has no /usr/local/cuda/bin/nvcc; CUDA_IMAGE wants one of NVIDIA's devel images" >&2
    exit 1
fi
cd /usr/local/cuda
for path in bin include nvvm targets/*/include; do
    [ ! -e "$path" ] || cp -a --parents "$path" "$target/"
done
