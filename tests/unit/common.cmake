llmd_test(NAME test_err SOURCES unit/test_err.c LIBS common LABELS unit)
llmd_test(NAME test_log SOURCES unit/test_log.c LIBS common LABELS unit threads)
