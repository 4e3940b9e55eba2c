# Run by ctest; see CMakeLists.txt for the variables.
function(run expected_output)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(failed OR NOT output MATCHES "${expected_output}")
    string(REPLACE ";" " " command "${ARGN}")
    message(FATAL_ERROR "${command}\nended with ${failed}; expected output: ${expected_output}\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK_FOLDER})
run("" ${CMAKE_COMMAND} --install ${BUILD_FOLDER} --prefix ${WORK_FOLDER}/prefix)

file(GLOB_RECURSE test_only RELATIVE ${WORK_FOLDER}/prefix
     ${WORK_FOLDER}/prefix/*test* ${WORK_FOLDER}/prefix/*gmock* ${WORK_FOLDER}/prefix/*.cpp)
if(test_only)
  message(FATAL_ERROR "installed, but should not be: ${test_only}")
endif()

run("" ${CMAKE_COMMAND} -S ${SOURCE_FOLDER} -B ${WORK_FOLDER}/build -G Ninja
    -D CMAKE_BUILD_TYPE=Release -D CMAKE_CXX_COMPILER=${CXX_COMPILER}
    -D CMAKE_PREFIX_PATH=${WORK_FOLDER}/prefix -D WITH_TORCH=${WITH_TORCH})
run("" ${CMAKE_COMMAND} --build ${WORK_FOLDER}/build)
string(REPLACE "." "\\." version_pattern ${VERSION})
run("farskip ${version_pattern}: hidden_size 2048" ${WORK_FOLDER}/build/use_core)
if(WITH_TORCH)
  run("sum 3" ${WORK_FOLDER}/build/use_torch)
endif()
