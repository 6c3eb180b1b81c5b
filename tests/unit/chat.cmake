# llmd_test() lines of this area
llmd_test(NAME test_chat_template SOURCES unit/test_chat_template.c LIBS text)
llmd_test(NAME test_chat_vectors SOURCES unit/test_chat_vectors.c LIBS text)
