# llmd_fuzz(NAME fuzz_x SOURCES fuzz/fuzz_x.c LIBS text [SEEDS more files or folders])
#
# One LLVMFuzzerTestOneInput() per parser of outside bytes.  With clang it becomes a libFuzzer binary, to be
# run as long as one likes; with gcc driver.c replays the seeds (tests/fuzz/seeds/NAME) and a fixed number of
# mutations of them.  ctest does either for about two seconds.
function(llmd_fuzz)
  cmake_parse_arguments(F "" "NAME" "SOURCES;LIBS;SEEDS" ${ARGN})
  set(seeds ${CMAKE_SOURCE_DIR}/tests/fuzz/seeds/${F_NAME} ${F_SEEDS})
  add_executable(${F_NAME} ${F_SOURCES})
  target_link_libraries(${F_NAME} PRIVATE ${F_LIBS})
  target_compile_definitions(${F_NAME} PRIVATE TEST_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  if(CMAKE_C_COMPILER_ID MATCHES "Clang")
    foreach(lib ${F_LIBS})
      target_compile_options(${lib} PRIVATE -fsanitize=fuzzer-no-link,address)
      target_link_options(${lib} INTERFACE -fsanitize=address)
    endforeach()
    target_compile_options(${F_NAME} PRIVATE -fsanitize=fuzzer,address -Wno-missing-prototypes)
    target_link_options(${F_NAME} PRIVATE -fsanitize=fuzzer,address)
    # libFuzzer writes what it finds into its first folder: not into the seeds.
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/corpus/${F_NAME})
    add_test(NAME ${F_NAME} COMMAND ${F_NAME} -max_total_time=2 -timeout=10
      ${CMAKE_BINARY_DIR}/corpus/${F_NAME} ${seeds})
  else()
    target_sources(${F_NAME} PRIVATE fuzz/driver.c)
    target_compile_options(${F_NAME} PRIVATE -Wno-missing-prototypes)
    add_test(NAME ${F_NAME} COMMAND ${F_NAME} --milliseconds 2000 ${seeds})
  endif()
  set_tests_properties(${F_NAME} PROPERTIES TIMEOUT 120 LABELS fuzz)
endfunction()

llmd_fuzz(NAME fuzz_chat_template SOURCES fuzz/fuzz_chat_template.c LIBS text)
llmd_fuzz(NAME fuzz_http_parser SOURCES fuzz/fuzz_http_parser.c LIBS net)
llmd_fuzz(NAME fuzz_sentencepiece SOURCES fuzz/fuzz_sentencepiece.c LIBS text)
llmd_fuzz(NAME fuzz_tokenizer_encode SOURCES fuzz/fuzz_tokenizer_encode.c LIBS text)
llmd_fuzz(NAME fuzz_tokenizer_json SOURCES fuzz/fuzz_tokenizer_json.c LIBS text)
if(COMMAND llmd_fuzz)
  llmd_fuzz(NAME fuzz_dialects SOURCES fuzz/fuzz_dialects.c LIBS gateway_core)
endif()
