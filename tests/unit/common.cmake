llmd_test(NAME test_err SOURCES unit/test_err.c LIBS common LABELS unit)
