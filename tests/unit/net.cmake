# llmd_test() lines of this area
llmd_test(NAME test_http_parser SOURCES unit/test_http_parser.c LIBS net LABELS unit)
llmd_test(NAME test_http_server SOURCES unit/test_http_server.c LIBS net LABELS unit threads)
llmd_test(NAME test_http_phases SOURCES unit/test_http_phases.c LIBS net LABELS unit)
llmd_test(NAME test_http_adopt SOURCES unit/test_http_adopt.c LIBS net LABELS unit threads)
llmd_test(NAME test_http_vectors SOURCES unit/test_http_vectors.c LIBS net LABELS unit)
llmd_test(NAME test_loop SOURCES unit/test_loop.c LIBS net LABELS unit threads)

add_executable(http_layer_server ${CMAKE_SOURCE_DIR}/bench/http_layer/server.c)
target_link_libraries(http_layer_server PRIVATE net)
