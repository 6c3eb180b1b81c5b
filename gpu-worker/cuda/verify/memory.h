/* memory.h - chunks of device memory in the children of gpu-verify: created, mapped, filled, checked.  Each
 * function ends the child with a reason when it cannot. */
#ifndef LLMD_CUDA_VERIFY_MEMORY_H
#define LLMD_CUDA_VERIFY_MEMORY_H

#include <stdint.h>

#include "gpu-worker/cuda/verify/child.h"

/* A chunk of GPU `gpu`, owned by the descriptor alone.  Needs no context. */
int memory_create(int sock, int gpu, uint64_t bytes);

/* The same in host memory, on the NUMA node that is nearest to the GPU. */
int memory_create_host(int sock, int gpu, uint64_t bytes);

/* Reserve one range and map the chunks one behind the other, each of `bytes`, for GPU `gpu`.  The
 * descriptors stay the caller's. */
cu_ptr memory_map(int sock, int gpu, const int *fds, int n, uint64_t bytes, bool is_writable);
/* One chunk of host memory, for the GPU and for the host, to be written. */
cu_ptr memory_map_host(int sock, int gpu, int fd, uint64_t bytes);
void memory_unmap(int sock, cu_ptr p, int n, uint64_t bytes);

/* Give chunk i the byte pattern of i, and count the bytes that differ from it (the first 1 MiB of each chunk and its
 * last page are looked at). */
void memory_fill(int sock, struct child_device *d, cu_ptr p, int n, uint64_t bytes);
uint64_t memory_wrong_bytes(int sock, struct child_device *d, cu_ptr p, int n, uint64_t bytes);

#endif
