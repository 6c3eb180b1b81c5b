llmd_test(NAME test_tokenizer_vectors SOURCES unit/test_tokenizer_vectors.c LIBS text LABELS unit)
