# llmd_test() lines of this area
llmd_test(NAME test_gateway_routes SOURCES proc/test_gateway_routes.c LIBS gateway_harness text
          TIMEOUT 60 LABELS proc)
add_dependencies(test_gateway_routes llm-gateway)
llmd_test(NAME test_gateway_life SOURCES proc/test_gateway_life.c LIBS gateway_harness TIMEOUT 90
          LABELS proc)
add_dependencies(test_gateway_life llm-gateway)
llmd_test(NAME test_llmctl SOURCES proc/test_llmctl.c proc/fake_llmd.c LIBS proto LABELS proc)
add_dependencies(test_llmctl llmctl)

llmd_test(NAME test_system
  SOURCES proc/test_system.c proc/system.c proc/http_client.c
  LIBS proto
  TIMEOUT 600 LABELS proc)

llmd_test(NAME test_models
  SOURCES proc/test_models.c proc/system.c proc/http_client.c
  LIBS checkpoint proto
  TIMEOUT 300 LABELS proc)
