llmd_test(NAME test_linear SOURCES ops/test_linear.c LIBS runtime LABELS ops)
llmd_test(NAME test_attention SOURCES ops/test_attention.c LIBS runtime LABELS ops)
llmd_test(NAME test_elementwise SOURCES ops/test_elementwise.c LIBS runtime LABELS ops)
llmd_test(NAME test_threads SOURCES ops/test_threads.c LIBS runtime LABELS ops threads)
