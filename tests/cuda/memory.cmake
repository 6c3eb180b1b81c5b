# Tests of GPU memory that outlives its worker, on the fake driver.
if(TARGET shim_kernels)
  llmd_cuda_test(NAME test_lasting_memory SOURCES cuda/test_lasting_memory.c LIBS cuda_memory
    LABELS cuda)
  llmd_cuda_test(NAME test_host_tier_device SOURCES cuda/test_host_tier_device.c LIBS cuda_memory
    LABELS cuda)
  llmd_cuda_test(NAME test_sibling_pages SOURCES cuda/test_sibling_pages.c LIBS cuda_exchange
    LABELS cuda)
  foreach(test test_gpu_system test_gpu_faults test_gpu_host_tier)
    llmd_gpu_server_test(NAME ${test} TIMEOUT 300)
  endforeach()
endif()
