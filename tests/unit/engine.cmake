# The engine half of gpu-worker/, over a fake runtime, and the real llm-worker process.
llmd_test(NAME test_philox SOURCES unit/test_philox.c LIBS engine LABELS unit)
llmd_test(NAME test_watermark SOURCES unit/test_watermark.c LIBS engine LABELS unit)
llmd_test(NAME test_sampler SOURCES unit/test_sampler.c unit/naive_sampler.c LIBS engine LABELS unit)
llmd_test(NAME test_kvcache SOURCES unit/test_kvcache.c unit/sequence_fixture.c LIBS engine LABELS unit)
llmd_test(NAME test_kv_tier SOURCES unit/test_kv_tier.c unit/sequence_fixture.c LIBS engine LABELS unit)
llmd_test(NAME test_scheduler SOURCES unit/test_scheduler.c unit/sequence_fixture.c LIBS engine
  LABELS unit)
llmd_test(NAME test_step_history SOURCES unit/test_step_history.c LIBS engine LABELS unit)
llmd_test(NAME test_step_pace SOURCES unit/test_step_pace.c LIBS engine LABELS unit)
llmd_test(NAME test_thinking SOURCES unit/test_thinking.c LIBS engine LABELS unit)
llmd_test(NAME test_speculation SOURCES unit/test_speculation.c LIBS engine LABELS unit)
add_library(engine_fixture STATIC
  unit/engine_fixture.c unit/engine_rig.c unit/fake_clock.c unit/fake_runtime.c unit/gateway_client.c)
target_link_libraries(engine_fixture PUBLIC engine PkgConfig::cmocka)
target_link_options(engine_fixture INTERFACE LINKER:--wrap=clock_gettime) # fake_clock.c
foreach(test test_engine test_engine_prompts test_engine_prefix test_engine_refusals test_engine_delivery)
  llmd_test(NAME ${test} SOURCES unit/${test}.c LIBS engine_fixture LABELS unit)
endforeach()
llmd_test(NAME test_page_adoption SOURCES unit/test_page_adoption.c LIBS engine_fixture LABELS unit)
foreach(test test_recovery test_poison)
  llmd_test(NAME ${test} SOURCES unit/${test}.c unit/recovery_rig.c LIBS engine_fixture LABELS unit)
endforeach()
add_library(worker_fixture STATIC unit/worker_fixture.c unit/worker_rig.c unit/gateway_client.c)
target_link_libraries(worker_fixture PUBLIC proto PkgConfig::cmocka)
target_compile_definitions(worker_fixture PRIVATE
  TEST_SOURCE_DIR="${CMAKE_SOURCE_DIR}" TEST_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
foreach(test test_worker_text test_worker_deaths test_worker_life)
  llmd_test(NAME ${test} SOURCES unit/${test}.c LIBS worker_fixture LABELS proc TIMEOUT 600)
  add_dependencies(${test} llm-worker)
endforeach()

# A measurement, here because it is the tests' rig that runs the worker.
add_executable(bench-recovery ${CMAKE_SOURCE_DIR}/bench/recovery.c unit/worker_rig.c
  unit/gateway_client.c)
target_link_libraries(bench-recovery PRIVATE proto PkgConfig::cmocka)
target_compile_definitions(bench-recovery PRIVATE TEST_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
add_dependencies(bench-recovery llm-worker)
add_executable(bench-scheduling ${CMAKE_SOURCE_DIR}/bench/scheduling.c unit/worker_rig.c
  unit/gateway_client.c)
target_link_libraries(bench-scheduling PRIVATE proto PkgConfig::cmocka)
target_compile_definitions(bench-scheduling PRIVATE TEST_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
add_dependencies(bench-scheduling llm-worker)
