llmd_test(NAME test_err SOURCES unit/test_err.c LIBS common LABELS unit)
llmd_test(NAME test_log SOURCES unit/test_log.c LIBS common LABELS unit threads)
llmd_test(NAME test_buf SOURCES unit/test_buf.c LIBS common LABELS unit)
llmd_test(NAME test_arena SOURCES unit/test_arena.c LIBS common LABELS unit)
