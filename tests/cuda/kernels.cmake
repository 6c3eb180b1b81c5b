# The kernels for GPUs, compiled for the CPU (shim/), and their tests.  Also what the fake driver (fake/) launches.
llmd_test(NAME test_attention_plan SOURCES cuda/test_attention_plan.c LIBS runtime LABELS unit)

if(NOT CMAKE_CXX_COMPILER)
  message(STATUS "No C++ compiler: the kernels for GPUs are not tested, nor is the worker on the fake driver")
  return()
endif()
include(${CMAKE_SOURCE_DIR}/gpu-worker/cuda/kernels/families.cmake)

# The race detector is told about the fibers, and must not watch how they are run.
add_library(shim OBJECT cuda/shim/cuda_host.cc cuda/shim/fiber.cc)
if(LLMD_SANITIZE MATCHES "thread")
  target_compile_options(shim PRIVATE -fno-sanitize=thread -DSHIM_TSAN)
endif()
target_compile_options(shim PRIVATE -O2)
set_target_properties(shim PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_link_libraries(shim PUBLIC Threads::Threads)

# No contraction: what is rounded twice on a GPU is not rounded once here.
set(kernel_files ${CUDA_FAMILIES})
list(TRANSFORM kernel_files PREPEND ${CMAKE_SOURCE_DIR}/gpu-worker/cuda/kernels/)
list(TRANSFORM kernel_files APPEND .cu)
set_source_files_properties(${kernel_files} cuda/shim/test_kernels.cu PROPERTIES LANGUAGE CXX)
add_library(shim_kernels OBJECT ${kernel_files})
target_compile_options(shim_kernels PRIVATE -ffp-contract=off)
set_target_properties(shim_kernels PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_link_libraries(shim_kernels PUBLIC shim)

# Whole models run on the fake driver: there the kernels, which have tests of their own, are not checked once more.
if(LLMD_SANITIZE)
  add_library(plain_shim OBJECT cuda/shim/cuda_host.cc cuda/shim/fiber.cc)
  add_library(plain_kernels OBJECT ${kernel_files})
  target_compile_options(plain_shim PRIVATE -O2 -fno-sanitize=all -ftls-model=initial-exec)
  target_compile_options(plain_kernels PRIVATE -O2 -fno-sanitize=all -ffp-contract=off)
  set_target_properties(plain_shim plain_kernels PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(plain_shim PUBLIC Threads::Threads)
  target_link_libraries(plain_kernels PUBLIC plain_shim)
else()
  add_library(plain_shim ALIAS shim)
  add_library(plain_kernels ALIAS shim_kernels)
endif()

# llmd_kernel_test(NAME test_cuda_gemv SOURCES cuda/test_cuda_gemv.c [LIBS runtime] [TIMEOUT 60] [LABELS threads]): with
# every kernel, in C or C++.  cuda/l1.h has what such tests share.  Label threads: also under the race detector.
function(llmd_kernel_test)
  cmake_parse_arguments(T "" "NAME;TIMEOUT" "SOURCES;LIBS;LABELS" ${ARGN})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  llmd_test(NAME ${T_NAME} SOURCES ${T_SOURCES} $<TARGET_OBJECTS:shim_kernels> $<TARGET_OBJECTS:shim>
    LIBS l1 ${T_LIBS} Threads::Threads TIMEOUT ${T_TIMEOUT} LABELS kernels ${T_LABELS})
  set_target_properties(${T_NAME} PROPERTIES LINKER_LANGUAGE CXX)
endfunction()

add_library(l1 STATIC cuda/l1.c)
target_link_libraries(l1 PUBLIC common PkgConfig::cmocka m)

llmd_kernel_test(NAME test_shim SOURCES cuda/shim/test_shim.c cuda/shim/test_kernels.cu LABELS threads)
target_compile_options(test_shim PRIVATE -ffp-contract=off)
llmd_kernel_test(NAME test_cuda_elementwise SOURCES cuda/test_cuda_elementwise.c LIBS runtime LABELS threads)
llmd_kernel_test(NAME test_cuda_pages SOURCES cuda/test_cuda_pages.c LABELS threads)
llmd_kernel_test(NAME test_cuda_sampling SOURCES cuda/test_cuda_sampling.c unit/naive_sampler.c LIBS engine LABELS threads)
llmd_kernel_test(NAME test_cuda_attention SOURCES cuda/test_cuda_attention.c LIBS runtime TIMEOUT 600)
llmd_kernel_test(NAME test_cuda_gemm SOURCES cuda/test_cuda_gemm.c LIBS runtime TIMEOUT 300)
llmd_kernel_test(NAME test_cuda_gemv SOURCES cuda/test_cuda_gemv.c LIBS runtime TIMEOUT 300)
llmd_kernel_test(NAME test_cuda_moe SOURCES cuda/test_cuda_moe.c LIBS runtime TIMEOUT 300)

# What nvcc made of them.
if(LLMD_FATBINS)
  add_test(NAME kernels_compiled COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cuda/check-compiled.sh
    ${CMAKE_BINARY_DIR}/gpu-worker/cuda $<$<BOOL:${LLMD_NVCC}>:${LLMD_NVCC}>)
  set_tests_properties(kernels_compiled PROPERTIES TIMEOUT 600 SKIP_RETURN_CODE 77 LABELS kernels)
endif()
