# The fake NVIDIA libraries, in a folder of their own that LD_LIBRARY_PATH names (README.md).
set(FAKE_CUDA_DIR ${CMAKE_BINARY_DIR}/fake-cuda)

# fake_library(TARGET file-name-without-lib SOURCES...)
function(fake_library target name)
  add_library(${target} SHARED ${ARGN})
  set_target_properties(${target} PROPERTIES OUTPUT_NAME ${name} SOVERSION 1
    LIBRARY_OUTPUT_DIRECTORY ${FAKE_CUDA_DIR} C_VISIBILITY_PRESET hidden)
  target_link_libraries(${target} PRIVATE Threads::Threads)
endfunction()

fake_library(fake_cuda cuda
  cuda/fake/copy.c
  cuda/fake/device.c
  cuda/fake/fault.c
  cuda/fake/graph.c
  cuda/fake/kernel.c
  cuda/fake/memory.c
  cuda/fake/settings.c
  cuda/fake/state.c
  cuda/fake/stream.c
  cuda/fake/work.c)
# The kernels themselves, as the shim has compiled them; bound to this library's copy of the shim, also where a
# test has one of its own.
if(TARGET shim_kernels)
  target_sources(fake_cuda PRIVATE $<TARGET_OBJECTS:plain_kernels> $<TARGET_OBJECTS:plain_shim>)
  set_target_properties(fake_cuda PROPERTIES LINKER_LANGUAGE CXX)
  target_link_options(fake_cuda PRIVATE -Wl,-Bsymbolic)
endif()

fake_library(fake_nvml nvidia-ml
  cuda/fake/nvml.c
  cuda/fake/settings.c
  cuda/fake/state.c)

# What tests do with the folder that its processes share.
add_library(fake_folder STATIC cuda/fake/folder.c)
target_link_libraries(fake_folder PUBLIC common)
