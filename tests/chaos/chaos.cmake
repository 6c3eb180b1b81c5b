# The chaos suite: the driver as a library, its command line, and its short form as a test.
add_library(chaos_driver STATIC
  chaos/answer.c chaos/audit.c chaos/catalog.c chaos/chaos.c chaos/client.c chaos/device_kills.c
  chaos/evidence.c chaos/gpus.c chaos/kills.c chaos/load.c chaos/model_files.c chaos/processes.c
  chaos/report.c chaos/server.c)
target_link_libraries(chaos_driver PUBLIC fake_folder proto m)
target_compile_definitions(chaos_driver PUBLIC FAKE_CUDA_DIR="${FAKE_CUDA_DIR}")
add_executable(chaos chaos/main.c)
target_link_libraries(chaos PRIVATE chaos_driver)
target_compile_definitions(chaos PRIVATE
  TEST_SOURCE_DIR="${CMAKE_SOURCE_DIR}" TEST_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
llmd_test(NAME test_chaos SOURCES chaos/test_chaos.c LIBS chaos_driver TIMEOUT 900 LABELS proc)
add_test(NAME test_chaos_quantized COMMAND test_chaos)
set_tests_properties(test_chaos_quantized PROPERTIES TIMEOUT 900 LABELS proc
  ENVIRONMENT "LLMD_QUANTIZE=int4;LLMD_KV_CACHE_DTYPE=int8;LLMD_CHAOS_ROUNDS=3;LLMD_CHAOS_SEED=4")
add_dependencies(test_chaos llmd llm-init llm-gateway llm-worker llmctl)
add_dependencies(chaos llmd llm-init llm-gateway llm-worker llmctl)
add_executable(make_model chaos/make_model.c chaos/model_files.c)
target_link_libraries(make_model PRIVATE common m)
# On fake GPUs, whose kernels need a C++ compiler.  Not with the race detector, where it takes minutes.
if(TARGET shim_kernels)
  add_dependencies(chaos fake_cuda fake_nvml fake_cublaslt fake_nccl)
endif()
if(TARGET shim_kernels AND NOT LLMD_SANITIZE MATCHES "thread")
  llmd_test(NAME test_chaos_gpu SOURCES chaos/test_chaos_gpu.c LIBS chaos_driver TIMEOUT 600
    LABELS cuda proc)
  add_dependencies(test_chaos_gpu chaos)
endif()
llmd_test(NAME test_answer SOURCES chaos/test_answer.c LIBS chaos_driver LABELS unit)
add_executable(fake_peer chaos/fake_peer.c)
target_link_libraries(fake_peer PRIVATE Threads::Threads)
llmd_test(NAME test_peer SOURCES chaos/test_peer.c LIBS chaos_driver TIMEOUT 120 LABELS proc)
add_dependencies(test_peer fake_peer)
add_test(NAME fault_points_listed COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/chaos/fault_points.sh ${CMAKE_SOURCE_DIR})
set_tests_properties(fault_points_listed PROPERTIES TIMEOUT 60 LABELS unit)
