# The images of docker/, built and run without an engine; only in builds whose programs could be shipped.
if(NOT LLMD_SANITIZE)
  add_test(NAME check_container
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/container/check.sh ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
  set_tests_properties(check_container PROPERTIES TIMEOUT 1500 SKIP_RETURN_CODE 77 LABELS container)
endif()
