# farskip_libtorch (what modules marked TORCH link) and their precompiled header.
include(farskip_libtorch)
farskip_add_libtorch(farskip_libtorch)
if(NOT FARSKIP_LIBTORCH)
  message(FATAL_ERROR "libtorch not found: run 'make deps', or name one in CMAKE_PREFIX_PATH, or configure with -DFARSKIP_TORCH=OFF")
endif()
message(STATUS "libtorch: ${FARSKIP_LIBTORCH}")
include(farskip_cuda)

# One precompiled header for every source that includes torch: 20 s once, 2 s a file after it.
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/farskip_torch_pch.cpp CONTENT "// Carries the precompiled header.\n")
add_library(farskip_torch_pch OBJECT ${PROJECT_BINARY_DIR}/farskip_torch_pch.cpp)
target_link_libraries(farskip_torch_pch PUBLIC farskip_options nlohmann_json::nlohmann_json farskip_libtorch)
target_precompile_headers(farskip_torch_pch PUBLIC ${PROJECT_SOURCE_DIR}/src/farskip/base/torch_pch.h)
