# Tests of the driver's door, of the device above it, and of the fake driver that everything above is tested on.

# opens_from(TARGET FOLDER): what it opens at run time is looked for there.  The older kind of path, since the
# sanitizers' dlopen() is theirs, and the newer kind counts for the caller alone.
function(opens_from target folder)
  set_target_properties(${target} PROPERTIES BUILD_RPATH ${folder})
  target_link_options(${target} PRIVATE -Wl,--disable-new-dtags)
endfunction()

# llmd_cuda_test(...): as llmd_test(), with the fake NVIDIA libraries found, also when it is started by hand.
function(llmd_cuda_test)
  cmake_parse_arguments(T "" "NAME" "" ${ARGN})
  llmd_test(${ARGN})
  target_link_libraries(${T_NAME} PRIVATE fake_folder)
  opens_from(${T_NAME} ${FAKE_CUDA_DIR})
  set_property(TEST ${T_NAME} APPEND PROPERTY ENVIRONMENT "LD_LIBRARY_PATH=${FAKE_CUDA_DIR}")
  add_dependencies(${T_NAME} fake_cuda fake_nvml)
endfunction()

# llmd_gpu_server_test(NAME test_gpu_system TIMEOUT 300): of proc/NAME.c, with a whole server on fake GPUs.
function(llmd_gpu_server_test)
  cmake_parse_arguments(T "" "NAME;TIMEOUT" "" ${ARGN})
  llmd_cuda_test(NAME ${T_NAME} SOURCES proc/${T_NAME}.c LIBS gpu_server TIMEOUT ${T_TIMEOUT}
    LABELS cuda proc)
  add_dependencies(${T_NAME} llmd llm-init llm-gateway llm-worker fake_cublaslt fake_nccl)
endfunction()

add_library(gpu_server STATIC proc/gpu_server.c)
target_link_libraries(gpu_server PUBLIC checkpoint fake_folder system_rig)
target_compile_definitions(gpu_server PRIVATE
  TEST_SOURCE_DIR="${CMAKE_SOURCE_DIR}" TEST_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")

llmd_test(NAME test_cuda_no_driver SOURCES cuda/test_cuda_no_driver.c LIBS cuda_device LABELS cuda)
llmd_cuda_test(NAME test_cuda_door SOURCES cuda/test_cuda_door.c LIBS cuda_device LABELS cuda)
llmd_cuda_test(NAME test_cuda_device SOURCES cuda/test_cuda_device.c LIBS cuda_device LABELS cuda threads)
llmd_cuda_test(NAME test_cuda_fake_memory SOURCES cuda/test_cuda_fake_memory.c LIBS cuda_device
  LABELS cuda threads)
llmd_cuda_test(NAME test_cuda_fake_faults SOURCES cuda/test_cuda_fake_faults.c LIBS cuda_device
  LABELS cuda threads)

llmd_test(NAME test_link_rate SOURCES unit/test_link_rate.c
  ${CMAKE_SOURCE_DIR}/gpu-worker/cuda/verify/link_rate.c LIBS common LABELS unit)
llmd_test(NAME test_roofline SOURCES unit/test_roofline.c
  ${CMAKE_SOURCE_DIR}/gpu-worker/cuda/verify/report.c LIBS roofline common LABELS unit)

# With real kernels.
if(TARGET shim_kernels)
  llmd_cuda_test(NAME test_gpu_verify SOURCES cuda/test_gpu_verify.c LIBS cuda_device TIMEOUT 600
    LABELS cuda proc)
  target_compile_definitions(test_gpu_verify PRIVATE FAKE_CUDA_DIR="${FAKE_CUDA_DIR}")
  add_dependencies(test_gpu_verify gpu-verify llmd llm-init llm-gateway llm-worker fake_cublaslt fake_nccl)
endif()

set(OLD_CUDA_DIR ${CMAKE_BINARY_DIR}/old-cuda)
add_library(old_cuda SHARED cuda/old_driver.c)
set_target_properties(old_cuda PROPERTIES OUTPUT_NAME cuda SOVERSION 1
  LIBRARY_OUTPUT_DIRECTORY ${OLD_CUDA_DIR})
llmd_test(NAME test_cuda_old_driver SOURCES cuda/test_cuda_old_driver.c LIBS cuda_device LABELS cuda)
opens_from(test_cuda_old_driver ${OLD_CUDA_DIR})
add_dependencies(test_cuda_old_driver old_cuda)

# The ABI: our declarations against NVIDIA's, by the compiler, where a toolkit is installed.
find_path(CUDA_HEADERS cuda.h PATHS /usr/local/cuda/include NO_CACHE)
if(CUDA_HEADERS AND CMAKE_CXX_COMPILER)
  add_executable(test_cuda_driver_abi cuda/test_cuda_driver_abi.cc)
  target_include_directories(test_cuda_driver_abi SYSTEM PRIVATE ${CUDA_HEADERS})
  set_target_properties(test_cuda_driver_abi PROPERTIES CXX_STANDARD 17 CXX_STANDARD_REQUIRED ON)
  add_test(NAME test_cuda_driver_abi COMMAND test_cuda_driver_abi)
  set_tests_properties(test_cuda_driver_abi PROPERTIES TIMEOUT 60 SKIP_RETURN_CODE 77 LABELS cuda)
else()
  message(STATUS "no CUDA headers or no C++ compiler: test_cuda_driver_abi is left out")
endif()
