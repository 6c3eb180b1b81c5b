# The fakes of cuBLASLt and NCCL beside that of the driver, and the tests of what is built on them: matrix products,
# and the exchange between the GPUs of a group.

# Loops over all of a model's weights, which tests of the whole worker wait for: optimised in every build.
fake_library(fake_cublaslt cublasLt cuda/fake/fake_cublaslt.c)
set_target_properties(fake_cublaslt PROPERTIES SOVERSION 13)
target_compile_options(fake_cublaslt PRIVATE -O3 -ffp-contract=off -fno-sanitize=all)
target_link_libraries(fake_cublaslt PRIVATE m ${CMAKE_DL_LIBS})
fake_library(fake_nccl nccl cuda/fake/fake_nccl.c)
set_target_properties(fake_nccl PROPERTIES SOVERSION 2)
target_link_libraries(fake_nccl PRIVATE ${CMAKE_DL_LIBS})

# llmd_library_test(...): as llmd_cuda_test(), with those two.
function(llmd_library_test)
  cmake_parse_arguments(T "" "NAME" "" ${ARGN})
  llmd_cuda_test(${ARGN})
  add_dependencies(${T_NAME} fake_cublaslt fake_nccl)
endfunction()

llmd_test(NAME test_cuda_mesh SOURCES cuda/test_cuda_mesh.c LIBS cuda_exchange LABELS cuda threads)
llmd_library_test(NAME test_cuda_blas SOURCES cuda/test_cuda_blas.c LIBS cuda_blas m LABELS cuda)
llmd_library_test(NAME test_cuda_nccl_comm SOURCES cuda/test_cuda_nccl_comm.c LIBS cuda_exchange
  LABELS cuda threads)
if(TARGET shim_kernels)
  llmd_kernel_test(NAME test_cuda_all_reduce SOURCES cuda/test_cuda_all_reduce.c)
  # Not one of the race detector's: every thread of every block is a fiber there, in processes that wait for each other.
  llmd_library_test(NAME test_cuda_exchange SOURCES cuda/test_cuda_exchange.c LIBS cuda_exchange m
    LABELS cuda)
endif()

# The ABI: our declarations against NVIDIA's, by the compiler, where those are installed.
find_path(CUBLASLT_HEADERS cublasLt.h PATHS /usr/local/cuda/include NO_CACHE)
find_path(NCCL_HEADERS nccl.h PATHS /usr/local/cuda/include NO_CACHE)
if(CUBLASLT_HEADERS)
  llmd_test(NAME test_cuda_library_abi SOURCES cuda/test_cuda_library_abi.c LABELS cuda)
  target_include_directories(test_cuda_library_abi SYSTEM PRIVATE ${CUBLASLT_HEADERS})
  if(NCCL_HEADERS)
    target_include_directories(test_cuda_library_abi SYSTEM PRIVATE ${NCCL_HEADERS})
    target_compile_definitions(test_cuda_library_abi PRIVATE HAVE_NCCL_H)
  endif()
else()
  message(STATUS "no headers of cuBLASLt: test_cuda_library_abi is left out")
endif()
