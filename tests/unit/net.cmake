# llmd_test() lines of this area
llmd_test(NAME test_http_parser SOURCES unit/test_http_parser.c LIBS net LABELS unit)

add_executable(http_layer_server ${CMAKE_SOURCE_DIR}/bench/http_layer/server.c)
target_link_libraries(http_layer_server PRIVATE net)
