# families.cmake - the kernels' files, one a line (NAME is kernels/NAME.cu): compiled for GPUs by
# gpu-worker/cuda/CMakeLists.txt, and for the CPU by tests/cuda/kernels.cmake.
set(CUDA_FAMILIES
  all_reduce
  attention_decode
  attention_group
  attention_prefill
  dequantise
  elementwise
  gemm_grouped
  gemm_w4
  gemv
  moe
  pages
  sampling
  w8a8
)
