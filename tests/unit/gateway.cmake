# llmd_test() lines of this area
llmd_test(NAME test_connections SOURCES unit/test_connections.c LIBS proto Threads::Threads LABELS unit)

# The gateway under test: fake workers, a test supervisor, an HTTP client.
add_library(gateway_harness STATIC gateway/client.c gateway/fake_worker.c gateway/harness.c)
target_link_libraries(gateway_harness PUBLIC proto common Threads::Threads)
target_compile_definitions(gateway_harness PRIVATE
  TEST_SOURCE_DIR="${CMAKE_SOURCE_DIR}" TEST_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
