# GGUF files: parser, tensors, tokenizer, and the writer of test files.
add_library(gguf_writer STATIC unit/gguf_writer.c)
target_link_libraries(gguf_writer PUBLIC common)
add_library(gguf_tokenizer STATIC unit/gguf_tokenizer.c)
target_link_libraries(gguf_tokenizer PUBLIC gguf_writer text PkgConfig::cmocka)

llmd_test(NAME test_gguf SOURCES unit/test_gguf.c LIBS gguf_writer checkpoint LABELS unit)

add_library(gguf_model STATIC unit/gguf_model.c)
target_link_libraries(gguf_model PUBLIC gguf_writer checkpoint)
llmd_test(NAME test_gguf_model SOURCES unit/test_gguf_model.c LIBS model_rig gguf_model LABELS unit)
llmd_test(NAME test_gguf_tokenizer SOURCES unit/test_gguf_tokenizer.c LIBS gguf_writer text LABELS unit)
llmd_test(NAME test_model_tool SOURCES unit/test_model_tool.c LIBS model_tool model_rig checkpoint LABELS unit)
