# farskip_module(NAME [TORCH] SOURCES ... [USES modules...])
#   A folder of src/farskip (or a part of one) as the object library farskip_NAME. Its objects go into the static library
#   farskip_core (torch-free) or farskip (TORCH). USES: modules that come along wherever this one is listed.
# farskip_test(NAME [TORCH] MODULES ... SOURCES ... [TIMEOUT seconds] [LABELS ...])
#   The GoogleTest program test_NAME, registered with ctest, labelled core or torch.
# farskip_benchmark(NAME [TORCH] MODULES ... SOURCES ...)
#   The Google Benchmark program bench_NAME; built by default, never run by ctest.
# farskip_fuzzer(NAME MODULES ... SOURCES ...)
#   The libFuzzer program fuzz_NAME, with FARSKIP_FUZZERS only. Its modules must be torch-free.
#
# MODULES lists every module whose objects are needed: objects are not passed on, but for USES. Without FARSKIP_TORCH, what
# is marked TORCH, or lists a module that is, does not exist.
set_property(GLOBAL PROPERTY farskip_core_modules "")
set_property(GLOBAL PROPERTY farskip_torch_modules "")

configure_file(${CMAKE_CURRENT_LIST_DIR}/version.h.in ${PROJECT_BINARY_DIR}/generated/farskip/version.h @ONLY)

add_library(farskip_options INTERFACE)
target_include_directories(farskip_options INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_BINARY_DIR}/generated)
set(farskip_warnings
  -Wall -Wextra -Wpedantic
  -Wno-unused-parameter
  -Wno-missing-field-initializers             # designated initializers leave fields out on purpose
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)    # g++ 12 invents overlaps in std::string concatenation
target_compile_options(farskip_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${farskip_warnings}>")
if(FARSKIP_SANITIZE)
  target_compile_options(farskip_options INTERFACE
    "$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${FARSKIP_SANITIZE};-fno-omit-frame-pointer>")
  target_link_options(farskip_options INTERFACE -fsanitize=${FARSKIP_SANITIZE})
  if(FARSKIP_SANITIZE MATCHES undefined)
    target_compile_options(farskip_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize-recover=undefined>)
  endif()
endif()

# What the sanitizer and fuzzing presets build.
add_custom_target(sanitizer_tests)
add_custom_target(fuzzers)

function(farskip_module name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "TORCH" "" "SOURCES;USES")
  if(arg_TORCH AND NOT FARSKIP_TORCH)
    return()
  endif()
  add_library(farskip_${name} OBJECT ${arg_SOURCES})
  set_property(TARGET farskip_${name} PROPERTY farskip_uses ${arg_USES})
  target_link_libraries(farskip_${name} PUBLIC farskip_options nlohmann_json::nlohmann_json Threads::Threads)
  if(arg_TORCH)
    target_link_libraries(farskip_${name} PUBLIC farskip_libtorch)
    target_precompile_headers(farskip_${name} REUSE_FROM farskip_torch_pch)
    set_property(GLOBAL APPEND PROPERTY farskip_torch_modules ${name})
  else()
    set_property(GLOBAL APPEND PROPERTY farskip_core_modules ${name})
  endif()
endfunction()

# Adds the program `target` of some modules; leaves it out when it needs torch and this build has none.
function(farskip_program target uses_torch sources modules)
  if(NOT FARSKIP_TORCH)
    foreach(module ${modules})
      if(NOT TARGET farskip_${module})
        return()
      endif()
    endforeach()
    if(uses_torch)
      return()
    endif()
  endif()
  add_executable(${target} ${sources})
  # The precompiled header is made with -fPIC, and only fits sources that are compiled with the same.
  # Modules with CUDA sources would have programs linked by the CUDA compiler, which reads link options its own way.
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF LINKER_LANGUAGE CXX)
  target_compile_options(${target} PRIVATE -fPIC)
  foreach(module ${modules})
    get_property(uses TARGET farskip_${module} PROPERTY farskip_uses)
    list(APPEND modules ${uses})
  endforeach()
  list(REMOVE_DUPLICATES modules)
  foreach(module ${modules})
    target_link_libraries(${target} PRIVATE farskip_${module})
  endforeach()
  if(uses_torch)
    target_link_libraries(${target} PRIVATE farskip_libtorch)
    target_precompile_headers(${target} REUSE_FROM farskip_torch_pch)
  endif()
  target_link_libraries(${target} PRIVATE farskip_options)
  target_compile_definitions(${target} PRIVATE FARSKIP_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
endfunction()

function(farskip_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "TORCH" "TIMEOUT" "SOURCES;MODULES;LABELS")
  if("nn" IN_LIST arg_MODULES OR "train" IN_LIST arg_MODULES)
    list(APPEND arg_SOURCES "${PROJECT_SOURCE_DIR}/tests/main.cpp")
  endif()
  farskip_program(test_${name} "${arg_TORCH}" "${arg_SOURCES}" "${arg_MODULES}")
  if(NOT TARGET test_${name})
    return()
  endif()
  target_link_libraries(test_${name} PRIVATE GTest::gtest_main GTest::gmock)
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  if(arg_TORCH)
    list(APPEND arg_LABELS torch)
  else()
    list(APPEND arg_LABELS core)
  endif()
  if(NOT arg_TORCH OR name STREQUAL "comm")
    add_dependencies(sanitizer_tests test_${name})
    list(APPEND arg_LABELS sanitizer)
  endif()
  add_test(NAME ${name} COMMAND test_${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}")
  if("gpu" IN_LIST arg_LABELS)
    # What tests/gpu.h says where there is none.
    set_tests_properties(${name} PROPERTIES SKIP_REGULAR_EXPRESSION "Skipped: no GPU")
  endif()
endfunction()

function(farskip_benchmark name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "TORCH" "" "SOURCES;MODULES")
  farskip_program(bench_${name} "${arg_TORCH}" "${arg_SOURCES}" "${arg_MODULES}")
  if(TARGET bench_${name})
    target_link_libraries(bench_${name} PRIVATE benchmark::benchmark_main benchmark::benchmark)
  endif()
endfunction()

function(farskip_fuzzer name)
  if(NOT FARSKIP_FUZZERS)
    return()
  endif()
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;MODULES")
  farskip_program(fuzz_${name} "" "${arg_SOURCES}" "${arg_MODULES}")
  if(TARGET fuzz_${name})
    target_compile_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    add_dependencies(fuzzers fuzz_${name})
  endif()
endfunction()
