# llmd_test() lines of this area

# A real llmd with real children; and one with fake_child in their place.
add_library(system_rig STATIC proc/system.c proc/golden.c proc/http_client.c)
add_library(llmd_rig STATIC proc/llmd_rig.c proc/orphans.c)
foreach(rig system_rig llmd_rig)
  target_link_libraries(${rig} PUBLIC proto PkgConfig::cmocka)
  target_compile_definitions(${rig} PRIVATE
    TEST_SOURCE_DIR="${CMAKE_SOURCE_DIR}" TEST_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
endforeach()

llmd_test(NAME test_gateway_routes SOURCES proc/test_gateway_routes.c LIBS gateway_harness text
          TIMEOUT 60 LABELS proc threads)
add_dependencies(test_gateway_routes llm-gateway)
llmd_test(NAME test_gateway_refusals SOURCES proc/test_gateway_refusals.c LIBS gateway_harness
          TIMEOUT 60 LABELS proc threads)
add_dependencies(test_gateway_refusals llm-gateway)
llmd_test(NAME test_gateway_pages SOURCES proc/test_gateway_pages.c LIBS gateway_harness
          TIMEOUT 60 LABELS proc threads)
add_dependencies(test_gateway_pages llm-gateway)
llmd_test(NAME test_gateway_tgi SOURCES proc/test_gateway_tgi.c LIBS gateway_harness TIMEOUT 60
          LABELS proc)
add_dependencies(test_gateway_tgi llm-gateway)
llmd_test(NAME test_gateway_oci SOURCES proc/test_gateway_oci.c LIBS gateway_harness TIMEOUT 60
          LABELS proc)
add_dependencies(test_gateway_oci llm-gateway)
llmd_test(NAME test_gateway_malformed SOURCES proc/test_gateway_malformed.c LIBS gateway_harness
          TIMEOUT 120 LABELS proc)
add_dependencies(test_gateway_malformed llm-gateway)
llmd_test(NAME test_gateway_life SOURCES proc/test_gateway_life.c LIBS gateway_harness TIMEOUT 90
          LABELS proc)
add_dependencies(test_gateway_life llm-gateway)
llmd_test(NAME test_gateway_takeover SOURCES proc/test_gateway_takeover.c LIBS gateway_harness
          TIMEOUT 400 LABELS proc)
add_dependencies(test_gateway_takeover llm-gateway)
llmd_test(NAME test_gateway_handover SOURCES proc/test_gateway_handover.c LIBS gateway_harness
          TIMEOUT 200 LABELS proc threads)
add_dependencies(test_gateway_handover llm-gateway)
llmd_test(NAME test_gateway_keys SOURCES proc/test_gateway_keys.c LIBS gateway_core gateway_harness
          TIMEOUT 90 LABELS proc threads)
add_dependencies(test_gateway_keys llm-gateway)
llmd_test(NAME test_llmctl SOURCES proc/test_llmctl.c proc/fake_llmd.c LIBS proto LABELS proc)
add_dependencies(test_llmctl llmctl)

llmd_test(NAME test_system
  SOURCES proc/test_system.c
  LIBS system_rig
  TIMEOUT 600 LABELS proc)

add_executable(fake_child proc/fake_child.c)
target_link_libraries(fake_child PRIVATE chunk_road proto)
llmd_test(NAME test_supervisor
  SOURCES proc/test_supervisor.c
  LIBS llmd_rig
  TIMEOUT 180 LABELS proc)
add_dependencies(test_supervisor fake_child llmd)
llmd_test(NAME test_adoption
  SOURCES proc/test_adoption.c
  LIBS llmd_rig
  TIMEOUT 240 LABELS proc)
add_dependencies(test_adoption fake_child llmd)
llmd_test(NAME test_gpu_keeping
  SOURCES proc/test_gpu_keeping.c
  LIBS llmd_rig
  TIMEOUT 120 LABELS proc)
add_dependencies(test_gpu_keeping fake_child llmd)
llmd_test(NAME test_gpu_down
  SOURCES proc/test_gpu_down.c
  LIBS llmd_rig
  TIMEOUT 120 LABELS proc)
add_dependencies(test_gpu_down fake_child llmd)
llmd_test(NAME test_openai
  SOURCES proc/test_openai.c
  LIBS system_rig
  TIMEOUT 300 LABELS proc)
llmd_test(NAME test_models
  SOURCES proc/test_models.c
  LIBS checkpoint system_rig
  TIMEOUT 300 LABELS proc)

add_test(NAME verify_units
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/proc/verify_units.sh ${CMAKE_BINARY_DIR}/systemd)
set_tests_properties(verify_units PROPERTIES TIMEOUT 60 SKIP_RETURN_CODE 77 LABELS proc)

add_executable(fake_kept proc/fake_kept.c)
llmd_test(NAME test_llm_init SOURCES proc/test_llm_init.c proc/orphans.c LIBS common LABELS proc)
add_dependencies(test_llm_init fake_kept llm-init llmd)
llmd_test(NAME test_hangs SOURCES proc/test_hangs.c LIBS llmd_rig LABELS proc)
add_dependencies(test_hangs fake_child llmd)

# The programs and units under a real systemd, booted in namespaces; root only.
add_test(NAME test_systemd COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/proc/test_systemd.sh
  ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${CMAKE_SOURCE_DIR})
set_tests_properties(test_systemd PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77 LABELS proc)
llmd_test(NAME test_llmd_kills
  SOURCES proc/test_llmd_kills.c
  LIBS system_rig
  TIMEOUT 300 LABELS proc)
add_dependencies(test_llmd_kills llm-init llmd llm-gateway llm-worker)

llmd_test(NAME test_model_switch
  SOURCES proc/test_model_switch.c
  LIBS system_rig
  TIMEOUT 300 LABELS proc)
llmd_test(NAME test_gguf_system
  SOURCES proc/test_gguf_system.c
  LIBS gguf_model gguf_tokenizer system_rig
  TIMEOUT 300 LABELS proc)
add_dependencies(test_gguf_system llmd llm-gateway llm-worker)
llmd_test(NAME test_metrics_requests SOURCES proc/test_metrics_requests.c LIBS gateway_harness
          TIMEOUT 60 LABELS proc)
add_dependencies(test_metrics_requests llm-gateway)
llmd_test(NAME test_metrics_system
  SOURCES proc/test_metrics_system.c
  LIBS system_rig
  TIMEOUT 300 LABELS proc)
add_dependencies(test_metrics_system llm-init llmd llm-gateway llm-worker)
llmd_test(NAME test_tgi_system
  SOURCES proc/test_tgi_system.c
  LIBS engine system_rig
  TIMEOUT 300 LABELS proc)
add_dependencies(test_tgi_system llmd llm-gateway llm-worker)
# What llmctl writes about itself.
add_test(NAME test_completion
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/proc/test_completion.sh $<TARGET_FILE:llmctl>)
set_tests_properties(test_completion PROPERTIES TIMEOUT 180 LABELS proc)
llmd_test(NAME test_bench SOURCES proc/test_bench.c LIBS ctl PkgConfig::jansson Threads::Threads TIMEOUT 120 LABELS proc)
add_dependencies(test_bench llmctl)
add_test(NAME test_llmctl_real COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/proc/test_llmctl_real.sh
  ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${CMAKE_SOURCE_DIR})
set_tests_properties(test_llmctl_real PROPERTIES TIMEOUT 300 LABELS proc)
add_test(NAME test_manuals COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/proc/test_manuals.sh
  ${CMAKE_BINARY_DIR}/man ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
set_tests_properties(test_manuals PROPERTIES TIMEOUT 180 LABELS proc)

add_test(NAME test_container_log
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/proc/test_container_log.sh ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
set_tests_properties(test_container_log PROPERTIES TIMEOUT 60 SKIP_RETURN_CODE 77 LABELS proc)
