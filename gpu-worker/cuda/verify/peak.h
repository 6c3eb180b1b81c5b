/* peak.h - what the tensor cores of some GPUs can do, by their data sheets: dense products of float16. */
#ifndef LLMD_CUDA_VERIFY_PEAK_H
#define LLMD_CUDA_VERIFY_PEAK_H

#include <stddef.h>
#include <string.h>

struct peak {
    const char *name; /* part of the GPU's */
    double tflops;
    double prefill_target; /* part of that which a long prompt is to reach (design, section 3.3) */
};

/* NULL: not in the table. */
static inline const struct peak *peak_of(const char *gpu)
{
    static const struct peak peaks[] = {
        { "A100", 312, 0.60 }, { "A10", 125, 0.55 }, { "H100", 989, 0.50 }, { "H200", 989, 0.50 }
    };

    for (size_t i = 0; i < sizeof peaks / sizeof peaks[0]; i++)
        if (strstr(gpu, peaks[i].name))
            return &peaks[i];
    return NULL;
}

#endif
