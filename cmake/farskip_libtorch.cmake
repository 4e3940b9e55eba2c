# farskip_add_libtorch(TARGET [HINT folder])
#   Finds a libtorch folder (include/, lib/) and declares TARGET, an interface library that compiles and links against it;
#   sets FARSKIP_LIBTORCH to the folder, or leaves it empty when there is none. In this order: CMAKE_PREFIX_PATH (variable
#   and environment), the torch that the active python would import, HINT, the project's .venv.
#
# Torch's own package file is not used: with a CUDA wheel it insists on a CUDA toolkit, which code that calls libtorch's C++
# interface does not need.

# The folder behind one entry of CMAKE_PREFIX_PATH, which may be a libtorch or torch.utils.cmake_prefix_path.
function(farskip_libtorch_at prefix result)
  foreach(candidate ${prefix} ${prefix}/../..)
    if(EXISTS ${candidate}/include/ATen/core/Tensor.h AND EXISTS ${candidate}/lib/libtorch_cpu.so)
      get_filename_component(candidate ${candidate} REALPATH)
      set(${result} ${candidate} PARENT_SCOPE)
      return()
    endif()
  endforeach()
  set(${result} "" PARENT_SCOPE)
endfunction()

# The folder of the torch that a python would import; importing it would take seconds.
function(farskip_libtorch_of_python python result)
  set(${result} "" PARENT_SCOPE)
  execute_process(
    COMMAND ${python} -c "import importlib.util as u, os, sys; sys.path[:] = [p for p in sys.path if p]; s = u.find_spec('torch'); print(os.path.dirname(s.origin))"
    OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed)
    farskip_libtorch_at(${folder} found)
    set(${result} ${found} PARENT_SCOPE)
  endif()
endfunction()

function(farskip_find_libtorch hint result)
  string(REPLACE ":" ";" environment_prefixes "$ENV{CMAKE_PREFIX_PATH}")
  foreach(prefix ${CMAKE_PREFIX_PATH} ${environment_prefixes})
    farskip_libtorch_at(${prefix} found)
    if(found)
      set(${result} ${found} PARENT_SCOPE)
      return()
    endif()
  endforeach()
  farskip_libtorch_of_python(python3 found)
  if(NOT found AND hint)
    farskip_libtorch_at(${hint} found)
  endif()
  if(NOT found AND EXISTS ${CMAKE_SOURCE_DIR}/.venv/bin/python)
    farskip_libtorch_of_python(${CMAKE_SOURCE_DIR}/.venv/bin/python found)
  endif()
  set(${result} "${found}" PARENT_SCOPE)
endfunction()

function(farskip_add_libtorch target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "HINT" "")
  farskip_find_libtorch("${arg_HINT}" root)
  set(FARSKIP_LIBTORCH "${root}" PARENT_SCOPE)
  if(NOT root)
    return()
  endif()
  add_library(${target} INTERFACE IMPORTED GLOBAL)
  target_include_directories(${target} SYSTEM INTERFACE ${root}/include ${root}/include/torch/csrc/api/include)
  # FMT_HEADER_ONLY: torch's copy of fmt shadows the system's, whose library lacks its symbols.
  target_compile_definitions(${target} INTERFACE AT_PER_OPERATOR_HEADERS FMT_HEADER_ONLY)
  # Without --no-as-needed the linker drops libtorch.so, and device backends never register.
  target_link_options(${target} INTERFACE LINKER:--no-as-needed LINKER:--allow-shlib-undefined)
  # libtorch 2.11 exports parts of std::filesystem that do not fit this compiler's: behind the objects and in front of
  # libtorch, the C++ library, shared or static, is where programs find theirs.
  target_link_libraries(${target} INTERFACE stdc++)
  foreach(library torch torch_cpu c10 torch_cuda c10_cuda)
    if(EXISTS ${root}/lib/lib${library}.so)
      target_link_libraries(${target} INTERFACE ${root}/lib/lib${library}.so)
    endif()
  endforeach()
endfunction()
