# What the measurements are made of: a wrong median or limit would be believed.
set(bench ${CMAKE_SOURCE_DIR}/bench)
llmd_test(NAME test_random_gguf SOURCES unit/test_random_gguf.c ${bench}/random_gguf.c ${bench}/shapes.c
  LIBS common LABELS unit)
llmd_test(NAME test_figures SOURCES unit/test_figures.c ${bench}/compare/figures.c
  ${bench}/machine_limits.c ${bench}/limit_kernels.c ${bench}/shapes.c LIBS runtime LABELS unit)
target_compile_definitions(test_figures PRIVATE TEST_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
llmd_test(NAME test_rounds_file SOURCES unit/test_rounds_file.c ${bench}/compare/rounds_file.c ${bench}/shapes.c
  LIBS common LABELS unit)
llmd_test(NAME test_http_load SOURCES unit/test_http_load.c ${bench}/compare/http_load.c LIBS common LABELS unit)
