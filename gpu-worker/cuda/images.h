/* images.h - the kernels compiled for GPUs, as they are embedded in the program: one fatbin a family of
 * kernels/families.cmake.
 *
 * A build without nvcc (or without LLMD_FATBINS) has none: n is 0.  The fake driver does not mind; on a real
 * one such a worker says so and computes on the CPU. */
#ifndef LLMD_GPU_WORKER_CUDA_IMAGES_H
#define LLMD_GPU_WORKER_CUDA_IMAGES_H

#include <stddef.h>

struct cuda_image {
    const char *family;
    const char *begin, *end; /* a fatbin, for cuModuleLoadData() */
};

extern const struct cuda_image cuda_images[];
extern const size_t n_cuda_images;

#endif
