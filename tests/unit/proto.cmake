llmd_test(NAME test_link SOURCES unit/test_link.c LIBS proto LABELS unit threads)
llmd_test(NAME test_frame SOURCES unit/test_frame.c LIBS proto LABELS unit)
llmd_test(NAME test_segment SOURCES unit/test_segment.c LIBS proto LABELS unit)
