#!/bin/bash
# gpu-verify.sh REPORT [option...] - on a machine with a GPU: measure what cannot be settled without one, and write the
# report (gpu-worker/cuda/verify).  nvcc has to be there, for the kernels.
#
# With --dry-run: the same program on the fake driver, on any machine, which proves the program alone.
set -euo pipefail
cd "$(dirname "$0")/.."

report=$1
shift
if [[ " $* " == *" --dry-run "* ]]; then
    state=$(mktemp -d)
    trap 'rm -rf "$state"' EXIT
    scripts/packages.sh test
    for target in programs gpu-verify fake_cuda fake_nvml fake_cublaslt fake_nccl; do
        scripts/build.sh release "$target"
    done
    LD_LIBRARY_PATH=build/release/fake-cuda \
        LLMD_FAKE_CUDA="gpus=2,memory=1g,multiprocessors=1,state=$state" \
        build/release/bin/gpu-verify --report "$report" "$@"
    exit
fi
if [[ ! -e /dev/nvidiactl && ! -e /dev/dxg ]]; then
    echo "gpu-verify: there is no NVIDIA GPU on this machine; make gpu-verify DRY_RUN=1 tries the program without one" >&2
    exit 2
fi
scripts/packages.sh build
scripts/build.sh release programs
scripts/build.sh release gpu-verify
exec build/release/bin/gpu-verify --report "$report" "$@"
