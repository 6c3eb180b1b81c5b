# llmd_test() lines of this area
if(COMMAND llmd_fuzz)
  llmd_fuzz(NAME fuzz_http_parser SOURCES fuzz/fuzz_http_parser.c LIBS net)
endif()
