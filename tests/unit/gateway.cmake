# llmd_test() lines of this area
llmd_test(NAME test_connections SOURCES unit/test_connections.c LIBS proto Threads::Threads LABELS unit threads)

# The gateway under test: fake workers, a test supervisor, an HTTP client.
add_library(gateway_harness STATIC gateway/client.c gateway/fake_worker.c gateway/harness.c
            gateway/talk.c)
target_link_libraries(gateway_harness PUBLIC proto common Threads::Threads)
target_compile_definitions(gateway_harness PRIVATE
  TEST_SOURCE_DIR="${CMAKE_SOURCE_DIR}" TEST_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
llmd_test(NAME test_arrival SOURCES unit/test_arrival.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_stop_match SOURCES unit/test_stop_match.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_fields SOURCES unit/test_fields.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_beam_search SOURCES unit/test_beam_search.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_dialects SOURCES unit/test_dialects.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_token_params SOURCES unit/test_token_params.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_conversations SOURCES unit/test_conversations.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_stream_interval SOURCES unit/test_stream_interval.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_repetition SOURCES unit/test_repetition.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_completions SOURCES unit/test_completions.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_openai_pages SOURCES unit/test_openai_pages.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_tgi SOURCES unit/test_tgi.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_chat SOURCES unit/test_chat.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_chat_text SOURCES unit/test_chat_text.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_responses SOURCES unit/test_responses.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_metrics SOURCES unit/test_metrics.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_upstream SOURCES unit/test_upstream.c LIBS gateway_core gateway_harness
          LABELS unit)
llmd_test(NAME test_journal SOURCES unit/test_journal.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_model_info SOURCES unit/test_model_info.c LIBS gateway_core gguf_writer LABELS unit)
llmd_test(NAME test_bucket SOURCES unit/test_bucket.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_fair_queue SOURCES unit/test_fair_queue.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_admission SOURCES unit/test_admission.c LIBS gateway_core LABELS unit threads)
llmd_test(NAME test_web SOURCES unit/test_web.c LIBS gateway_core LABELS unit)
llmd_test(NAME test_openapi SOURCES unit/test_openapi.c LIBS gateway_core LABELS unit)

# What client libraries talk to (make check-clients).
add_executable(serve_scripted clients/serve.c)
target_link_libraries(serve_scripted PRIVATE gateway_harness PkgConfig::cmocka)
add_dependencies(serve_scripted llm-gateway)

# What a browser talks to (make check-web), where no model can be trusted to say it.
add_executable(serve_told web/serve.c)
target_link_libraries(serve_told PRIVATE gateway_harness PkgConfig::cmocka)
add_dependencies(serve_told llm-gateway)
