# llmd_test() lines of this area
if(COMMAND llmd_fuzz)
  llmd_fuzz(NAME fuzz_safetensors SOURCES fuzz/fuzz_safetensors.c LIBS runtime)
  llmd_fuzz(NAME fuzz_model_config SOURCES fuzz/fuzz_model_config.c LIBS runtime)
endif()
