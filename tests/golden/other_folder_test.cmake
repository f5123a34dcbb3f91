# A folder named by $SMLP_GOLDEN_DIR is listed though another was listed before: once the first folder's names stayed until
# the program was built again.  cmake -DBUILD=… -DFOLDER=… -P other_folder_test.cmake
file(WRITE ${FOLDER}/another.json "{}")
execute_process(COMMAND ${CMAKE_COMMAND} -E env SMLP_GOLDEN_DIR=${FOLDER} ${CMAKE_CTEST_COMMAND} -N -R "^golden\\." --test-dir ${BUILD}
  OUTPUT_VARIABLE listed COMMAND_ERROR_IS_FATAL ANY)
if(NOT listed MATCHES "/another_f64_cpu" OR listed MATCHES "/gmlp_f64_cpu")
  message(FATAL_ERROR "with SMLP_GOLDEN_DIR=${FOLDER}, which holds another.json, ctest lists:\n${listed}")
endif()
