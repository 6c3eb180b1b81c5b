# A small random model against the CPU, and groups of ranks as processes, on four GPUs of the fake driver.
if(TARGET shim_kernels)
  llmd_cuda_test(NAME test_cuda_small_model SOURCES cuda/test_cuda_small_model.c
    LIBS model_twins TIMEOUT 900 LABELS cuda)
  set_property(TEST test_cuda_small_model APPEND PROPERTY ENVIRONMENT
    "LLMD_FAKE_CUDA=gpus=4,memory=600m,multiprocessors=1")
  add_dependencies(test_cuda_small_model fake_cublaslt fake_nccl)
  # A GPU whose library multiplies no bfloat16.
  get_test_property(test_cuda_small_model ENVIRONMENT fake_environment)
  add_test(NAME test_cuda_small_model_sm75 COMMAND test_cuda_small_model many_rows*)
  set_tests_properties(test_cuda_small_model_sm75 PROPERTIES TIMEOUT 900 LABELS cuda
    ENVIRONMENT "${fake_environment};LLMD_FAKE_CUDA=sm=75,memory=600m,multiprocessors=1")
  llmd_gpu_server_test(NAME test_gpu_ranks TIMEOUT 900)
  llmd_gpu_server_test(NAME test_gpu_links TIMEOUT 300)
endif()
