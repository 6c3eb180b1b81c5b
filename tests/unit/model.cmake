# The compute half of the worker.
include(ops/ops.cmake)

add_library(model_rig STATIC unit/model_rig.c)
target_link_libraries(model_rig PUBLIC runtime PkgConfig::cmocka)

llmd_test(NAME test_llama_golden SOURCES unit/test_llama_golden.c LIBS model_rig TIMEOUT 300)

add_library(checkpoint STATIC unit/checkpoint.c)
target_link_libraries(checkpoint PUBLIC runtime PkgConfig::cmocka)

llmd_test(NAME test_llama_shards SOURCES unit/test_llama_shards.c LIBS runtime checkpoint LABELS unit)
llmd_test(NAME test_llama_families SOURCES unit/test_llama_families.c LIBS model_rig checkpoint TIMEOUT 300)
llmd_test(NAME test_safetensors SOURCES unit/test_safetensors.c LIBS checkpoint)
llmd_test(NAME test_tensor_type SOURCES unit/test_tensor_type.c LIBS runtime LABELS unit)
llmd_test(NAME test_quantize SOURCES unit/test_quantize.c LIBS model_rig)
add_library(packed_writer STATIC unit/packed_writer.c)
target_link_libraries(packed_writer PUBLIC checkpoint)
llmd_test(NAME test_packed_checkpoints SOURCES unit/test_packed_checkpoints.c
  LIBS model_rig packed_writer model_tool)
llmd_test(NAME test_kv_scales SOURCES unit/test_kv_scales.c LIBS runtime)
llmd_test(NAME test_model_config SOURCES unit/test_model_config.c LIBS runtime)
llmd_test(NAME test_weights SOURCES unit/test_weights.c LIBS checkpoint)
llmd_test(NAME test_comm SOURCES unit/test_comm.c LIBS runtime LABELS unit threads)
llmd_test(NAME test_runtime SOURCES unit/test_runtime.c LIBS model_rig checkpoint LABELS unit threads)
llmd_test(NAME test_host SOURCES unit/test_host.c LIBS checkpoint)
llmd_test(NAME test_huge SOURCES unit/test_huge.c LIBS checkpoint runtime)
llmd_test(NAME test_topology SOURCES unit/test_topology.c LIBS checkpoint)
