# The CUDA backend's ops, and whole models, on the fake driver.
llmd_test(NAME test_no_gpu SOURCES cuda/test_no_gpu.c LIBS runtime LABELS cuda)
add_library(model_twins STATIC cuda/model_twins.c cuda/rounded_cpu.c)
target_link_libraries(model_twins PUBLIC model_rig checkpoint m)
target_link_options(model_twins INTERFACE LINKER:--wrap=ops_cpu_open,--wrap=blas_gemm) # rounded_cpu.c
if(TARGET shim_kernels)
  llmd_cuda_test(NAME test_ops_cuda SOURCES cuda/test_ops_cuda.c LIBS runtime TIMEOUT 300
    LABELS cuda)
  llmd_cuda_test(NAME test_cuda_model SOURCES cuda/test_cuda_model.c LIBS model_twins
    TIMEOUT 300 LABELS cuda)
  # Four GPUs, for the ranks of a group.
  set_property(TEST test_cuda_model APPEND PROPERTY ENVIRONMENT "LLMD_FAKE_CUDA=gpus=4,memory=600m,multiprocessors=1")
  llmd_cuda_test(NAME test_gpu_room SOURCES cuda/test_gpu_room.c LIBS runtime LABELS cuda)
  llmd_cuda_test(NAME test_cuda_kv_fp8 SOURCES cuda/test_cuda_kv_fp8.c LIBS model_twins packed_writer
    TIMEOUT 300 LABELS cuda)
  set_property(TEST test_cuda_kv_fp8 APPEND PROPERTY
    ENVIRONMENT "LLMD_FAKE_CUDA=memory=600m,multiprocessors=1")
  # A GPU that takes a scale for each row, one that takes a single one, and one that multiplies no fp8.
  llmd_cuda_test(NAME test_cuda_fp8 SOURCES cuda/test_cuda_fp8.c LIBS model_twins packed_writer
    TIMEOUT 300 LABELS cuda)
  get_test_property(test_cuda_fp8 ENVIRONMENT fake_environment)
  set_property(TEST test_cuda_fp8 APPEND PROPERTY
    ENVIRONMENT "LLMD_FAKE_CUDA=sm=90,gpus=2,memory=600m,multiprocessors=1")
  foreach(sm 89 80)
    add_test(NAME test_cuda_fp8_sm${sm} COMMAND test_cuda_fp8 products*)
    set_tests_properties(test_cuda_fp8_sm${sm} PROPERTIES TIMEOUT 300 LABELS cuda
      ENVIRONMENT "${fake_environment};LLMD_FAKE_CUDA=sm=${sm},multiprocessors=1")
  endforeach()
  # A GPU that multiplies int8, and one that does not.
  llmd_cuda_test(NAME test_cuda_int8 SOURCES cuda/test_cuda_int8.c LIBS model_twins packed_writer text
    TIMEOUT 300 LABELS cuda)
  get_test_property(test_cuda_int8 ENVIRONMENT fake_environment)
  set_property(TEST test_cuda_int8 APPEND PROPERTY
    ENVIRONMENT "LLMD_FAKE_CUDA=sm=86,gpus=2,memory=600m,multiprocessors=1")
  add_test(NAME test_cuda_int8_sm70 COMMAND test_cuda_int8 long_prompts*)
  set_tests_properties(test_cuda_int8_sm70 PROPERTIES TIMEOUT 300 LABELS cuda
    ENVIRONMENT "${fake_environment};LLMD_FAKE_CUDA=sm=70,multiprocessors=1")
  llmd_cuda_test(NAME test_cuda_draws SOURCES cuda/test_cuda_draws.c LIBS model_twins engine
    LABELS cuda)
  llmd_cuda_test(NAME test_cuda_graphs SOURCES cuda/test_cuda_graphs.c LIBS model_twins
    LABELS cuda)
  llmd_cuda_test(NAME test_cuda_grouped SOURCES cuda/test_cuda_grouped.c LIBS model_twins
    LABELS cuda)
  set_property(TEST test_cuda_draws test_cuda_graphs test_cuda_grouped APPEND PROPERTY ENVIRONMENT "LLMD_FAKE_CUDA=gpus=2,memory=600m,multiprocessors=1")
  foreach(test test_ops_cuda test_cuda_model test_gpu_room test_cuda_kv_fp8 test_cuda_fp8 test_cuda_int8
      test_cuda_draws
      test_cuda_graphs test_cuda_grouped)
    add_dependencies(${test} fake_cublaslt fake_nccl)
  endforeach()
endif()
