# deploy/ against the real programs: once is enough, so in the build that is shipped.
if(LLMD_SANITIZE)
  return()
endif()
add_test(NAME test_monitoring COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/deploy/test_monitoring.sh
  ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${CMAKE_SOURCE_DIR})
set_tests_properties(test_monitoring PROPERTIES TIMEOUT 180 SKIP_RETURN_CODE 77 LABELS deploy)
add_test(NAME test_kubernetes COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/deploy/test_kubernetes.sh
  ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${CMAKE_SOURCE_DIR})
set_tests_properties(test_kubernetes PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77 LABELS deploy)
add_test(NAME test_api_guide COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/deploy/test_api_guide.sh
  ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${CMAKE_SOURCE_DIR})
set_tests_properties(test_api_guide PROPERTIES TIMEOUT 120 LABELS deploy)
