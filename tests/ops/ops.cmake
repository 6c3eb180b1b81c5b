# The units that gpu-worker/ builds without sanitizers, with them: linked before runtime, which has the same.  Checks
# are calls and only of memory, since gcc takes minutes for others.
if(LLMD_SANITIZE MATCHES "address" AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  add_library(ops_checked OBJECT ${CMAKE_SOURCE_DIR}/gpu-worker/ops/int_avx2.c
    ${CMAKE_SOURCE_DIR}/gpu-worker/ops/ops_avx2.c)
  target_link_libraries(ops_checked PRIVATE common proto)
  target_compile_options(ops_checked PRIVATE -O2 -ffp-contract=off -mavx2 -mfma -mf16c
    -fno-sanitize=undefined --param=asan-instrumentation-with-call-threshold=0)
  add_library(ops_under_test INTERFACE)
  target_sources(ops_under_test INTERFACE $<TARGET_OBJECTS:ops_checked>)
  target_link_libraries(ops_under_test INTERFACE runtime)
else()
  add_library(ops_under_test ALIAS runtime)
endif()

llmd_test(NAME test_linear SOURCES ops/test_linear.c LIBS ops_under_test LABELS ops)
llmd_test(NAME test_rounding SOURCES ops/test_rounding.c LIBS runtime LABELS ops)
llmd_test(NAME test_int_linear SOURCES ops/test_int_linear.c LIBS ops_under_test LABELS ops)
llmd_test(NAME test_packing SOURCES ops/test_packing.c LIBS runtime LABELS ops)
llmd_test(NAME test_cuda_packing SOURCES cuda/test_cuda_packing.c LIBS runtime LABELS ops)
llmd_test(NAME test_attention SOURCES ops/test_attention.c LIBS ops_under_test LABELS ops)
llmd_test(NAME test_elementwise SOURCES ops/test_elementwise.c LIBS ops_under_test LABELS ops)
llmd_test(NAME test_moe SOURCES ops/test_moe.c LIBS ops_under_test LABELS ops)
llmd_test(NAME test_threads SOURCES ops/test_threads.c LIBS runtime LABELS ops threads)

include(ops/emulated/emulated.cmake)
llmd_test(NAME test_linear_emulated SOURCES ops/test_linear.c LIBS ops_emulated LABELS ops)
llmd_test(NAME test_int_linear_emulated SOURCES ops/test_int_linear.c LIBS ops_emulated LABELS ops)
llmd_test(NAME test_attention_emulated SOURCES ops/test_attention.c LIBS ops_emulated LABELS ops)
llmd_test(NAME test_elementwise_emulated SOURCES ops/test_elementwise.c LIBS ops_emulated LABELS ops)
llmd_test(NAME test_moe_emulated SOURCES ops/test_moe.c LIBS ops_emulated LABELS ops)
