llmd_test(NAME test_link SOURCES unit/test_link.c LIBS proto LABELS unit threads)
