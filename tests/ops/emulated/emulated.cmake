# The ops once more, the units of newer instruction sets with emulated instructions (immintrin.h here), so
# that every tier is tested on any machine.  Linked before runtime, from which comes all the rest.
get_target_property(runtime_sources runtime SOURCES)
get_target_property(runtime_dir runtime SOURCE_DIR)
list(FILTER runtime_sources INCLUDE REGEX "^ops/")
list(REMOVE_ITEM runtime_sources ops/cpu_features.c)
set(newer ${runtime_sources})
list(FILTER newer INCLUDE REGEX "amx|avx512|avxvnni|ops_avx2")
list(FILTER runtime_sources EXCLUDE REGEX "amx|avx512|avxvnni|avx2|ops_cpu|int_plain|rounding|packing|threads|rope")
list(TRANSFORM newer PREPEND ${runtime_dir}/)
list(TRANSFORM runtime_sources PREPEND ${runtime_dir}/)

add_library(ops_emulated_units OBJECT ${newer})
target_include_directories(ops_emulated_units BEFORE PRIVATE ${CMAKE_CURRENT_LIST_DIR})
target_link_libraries(ops_emulated_units PRIVATE common proto)
target_compile_options(ops_emulated_units PRIVATE -O2 -ffp-contract=off -mavx2 -mfma -mf16c -Wno-psabi
  -fno-sanitize=all -DEMULATED_VNNI)
add_library(ops_emulated STATIC ${runtime_sources} ${CMAKE_CURRENT_LIST_DIR}/cpu_features.c
  $<TARGET_OBJECTS:ops_emulated_units>)
target_link_libraries(ops_emulated PUBLIC runtime)
