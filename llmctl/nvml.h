/* nvml.h - what NVIDIA's driver says of its GPUs, through libnvidia-ml when it is installed: loaded at run time, so
 * nothing is needed where there is none. */
#ifndef LLMD_LLMCTL_NVML_H
#define LLMD_LLMCTL_NVML_H

#include <stdbool.h>
#include <stdint.h>

enum { NVML_GPUS_MAX = 16 };

struct nvml_gpu {
    char name[96];
    uint64_t memory_bytes;
    bool persistent; /* persistence mode */
    bool ecc_known;
    uint64_t ecc_uncorrected; /* since the driver was loaded */
};

struct nvml {
    bool is_loaded; /* the library is there and answered */
    unsigned n;
    struct nvml_gpu gpus[NVML_GPUS_MAX];
};

void nvml_read(struct nvml *out);

#endif
