# The OCI kit; only in builds whose programs could be shipped.
if(NOT LLMD_SANITIZE)
  add_test(NAME check_oci COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/oci/check.sh ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
  set_tests_properties(check_oci PROPERTIES TIMEOUT 600 SKIP_RETURN_CODE 77 LABELS oci)
endif()
