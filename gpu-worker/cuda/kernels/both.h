/* both.h - for argument headers: KBOTH stands before a function that the host's C code and kernels call. */
#ifndef LLMD_GPU_WORKER_CUDA_KERNELS_BOTH_H
#define LLMD_GPU_WORKER_CUDA_KERNELS_BOTH_H

#ifdef __CUDACC__
#define KBOTH static __host__ __device__ __forceinline__
#else
#define KBOTH static inline
#endif

#endif
