llmd_test(NAME test_sse SOURCES unit/test_sse.c LIBS ctl LABELS unit)
llmd_test(NAME test_table SOURCES unit/test_table.c LIBS ctl LABELS unit)
llmd_test(NAME test_terminal SOURCES unit/test_terminal.c LIBS ctl LABELS unit)
llmd_test(NAME test_checks SOURCES unit/test_checks.c LIBS ctl LABELS unit)
