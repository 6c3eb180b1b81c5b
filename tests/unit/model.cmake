# The compute half of the worker.
include(ops/ops.cmake)

add_library(model_rig STATIC unit/model_rig.c)
target_link_libraries(model_rig PUBLIC runtime PkgConfig::cmocka)

llmd_test(NAME test_llama_golden SOURCES unit/test_llama_golden.c LIBS model_rig)

add_library(checkpoint STATIC unit/checkpoint.c)
target_link_libraries(checkpoint PUBLIC runtime PkgConfig::cmocka)

llmd_test(NAME test_llama_families SOURCES unit/test_llama_families.c LIBS model_rig checkpoint)
