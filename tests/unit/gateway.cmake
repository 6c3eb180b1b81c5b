# llmd_test() lines of this area
llmd_test(NAME test_connections SOURCES unit/test_connections.c LIBS proto Threads::Threads LABELS unit)
