# The static libraries that a consumer links, farskip::core and farskip::farskip, made of the modules' objects, and their
# installation with headers and package files. The command's own module is in neither.
include(CMakePackageConfigHelpers)
set(farskip_package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/farskip)

function(farskip_library target name modules)
  list(REMOVE_ITEM modules cli)
  set(objects ${modules})
  list(TRANSFORM objects REPLACE "(.+)" "$<TARGET_OBJECTS:farskip_\\1>")
  add_library(${target} STATIC ${objects})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name} LINKER_LANGUAGE CXX)
  target_compile_features(${target} INTERFACE cxx_std_20)
  target_include_directories(${target} INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(${target} INTERFACE nlohmann_json::nlohmann_json Threads::Threads)
endfunction()

get_property(core_modules GLOBAL PROPERTY farskip_core_modules)
farskip_library(farskip_core_library core "${core_modules}")
set_target_properties(farskip_core_library PROPERTIES OUTPUT_NAME farskip_core)
if(FARSKIP_PCRE2)
  target_link_libraries(farskip_core_library INTERFACE $<INSTALL_INTERFACE:pcre2-8>)
endif()
if(FARSKIP_UTF8PROC)
  target_link_libraries(farskip_core_library INTERFACE $<INSTALL_INTERFACE:utf8proc>)
endif()
install(TARGETS farskip_core_library EXPORT farskip-core ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT farskip-core NAMESPACE farskip:: FILE farskip-core-targets.cmake DESTINATION ${farskip_package_folder})

get_property(torch_modules GLOBAL PROPERTY farskip_torch_modules)
list(REMOVE_ITEM torch_modules cli)
set(farskip_header_folders base model graph schedule simulate trace plan)
set(farskip_has_torch_part OFF)
if(torch_modules)
  set(farskip_has_torch_part ON)
  list(APPEND farskip_header_folders cuda comm nn io runtime train eval)
  farskip_library(farskip_torch_library farskip "${torch_modules}")
  set_target_properties(farskip_torch_library PROPERTIES OUTPUT_NAME farskip)
  # farskip::libtorch is declared by the package file, from the libtorch of the machine that it is used on.
  target_link_libraries(farskip_torch_library INTERFACE farskip_core_library $<INSTALL_INTERFACE:farskip::libtorch>)
  if(FARSKIP_WITH_CUDA)
    target_link_libraries(farskip_torch_library INTERFACE $<INSTALL_INTERFACE:CUDA::cudart_static>)
  endif()
  if(FARSKIP_MPI)
    target_link_libraries(farskip_torch_library INTERFACE $<INSTALL_INTERFACE:MPI::MPI_CXX>)
  endif()
  if(FARSKIP_NCCL)
    target_link_libraries(farskip_torch_library INTERFACE $<INSTALL_INTERFACE:farskip::nccl>)
  endif()
  install(TARGETS farskip_torch_library EXPORT farskip-torch ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT farskip-torch NAMESPACE farskip:: FILE farskip-torch-targets.cmake
          DESTINATION ${farskip_package_folder})
  install(FILES ${PROJECT_SOURCE_DIR}/cmake/farskip_libtorch.cmake ${PROJECT_SOURCE_DIR}/cmake/farskip_nccl.cmake
          DESTINATION ${farskip_package_folder})
endif()

# Headers of io and train whose code is torch-free.
set(farskip_torch_free_io
  added_tokens.h byte_alphabet.h byte_pair_model.h corpus.h data_order.h normalizer.h pattern.h pattern_dialect.h
  pre_tokenizer.h safetensors_header.h token_file.h tokenizer.h tokenizer_definition.h utf8.h)
list(TRANSFORM farskip_torch_free_io PREPEND ${PROJECT_SOURCE_DIR}/src/farskip/io/)
install(FILES ${farskip_torch_free_io} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/farskip/io)
foreach(header checkpoint_folder learning_rate manifest rank_meeting run_metrics run_plot shards)
  install(FILES ${PROJECT_SOURCE_DIR}/src/farskip/train/${header}.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/farskip/train)
endforeach()
foreach(folder ${farskip_header_folders})
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/src/farskip/${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/farskip
          FILES_MATCHING PATTERN "*.h" PATTERN "torch_pch.h" EXCLUDE PATTERN "*_kernels.h" EXCLUDE)
endforeach()
install(FILES ${PROJECT_BINARY_DIR}/generated/farskip/version.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/farskip)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/farskip-config.cmake.in ${PROJECT_BINARY_DIR}/farskip-config.cmake
                              INSTALL_DESTINATION ${farskip_package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/farskip-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/farskip-config.cmake ${PROJECT_BINARY_DIR}/farskip-config-version.cmake
        DESTINATION ${farskip_package_folder})
