# farskip_libtorch (what modules marked TORCH link) and their precompiled header.
include(farskip_libtorch)
farskip_add_libtorch(farskip_libtorch)
if(NOT FARSKIP_LIBTORCH)
  message(FATAL_ERROR "libtorch not found: run 'make deps', or name one in CMAKE_PREFIX_PATH, or configure with -DFARSKIP_TORCH=OFF")
endif()
message(STATUS "libtorch: ${FARSKIP_LIBTORCH}")
include(farskip_cuda)

# FARSKIP_NCCL: on where all of it is there, unless said otherwise.
include(farskip_nccl)
farskip_find_nccl("${FARSKIP_LIBTORCH}" nccl_missing)
if(nccl_missing)
  set(nccl_there OFF)
else()
  set(nccl_there ON)
endif()
option(FARSKIP_NCCL "Build the nccl transport (a CUDA libtorch, nccl.h and the CUDA runtime's headers)" ${nccl_there})
if(FARSKIP_NCCL)
  farskip_add_nccl(farskip_nccl "${FARSKIP_LIBTORCH}")
endif()

# One precompiled header for every source that includes torch: 20 s once, 2 s a file after it.
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/farskip_torch_pch.cpp CONTENT "// Carries the precompiled header.\n")
add_library(farskip_torch_pch OBJECT ${PROJECT_BINARY_DIR}/farskip_torch_pch.cpp)
target_link_libraries(farskip_torch_pch PUBLIC farskip_options nlohmann_json::nlohmann_json farskip_libtorch)
target_precompile_headers(farskip_torch_pch PUBLIC ${PROJECT_SOURCE_DIR}/src/farskip/base/torch_pch.h)
