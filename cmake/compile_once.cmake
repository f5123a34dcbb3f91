# Through ccache, where it is: files that builds of this tree compile alike, with CUDA and without, are compiled once. The cache
# is the tree's own, and found for build folders at one depth (tests/system/builds.py). CCACHE_DISABLE=1 does without.
find_program(SMLP_CCACHE ccache)
if(NOT SMLP_CCACHE OR CMAKE_CXX_COMPILER_LAUNCHER)
  return()
endif()
set(cache ${CMAKE_SOURCE_DIR}/.cache/ccache)
execute_process(COMMAND ${CMAKE_COMMAND} -E make_directory ${cache} ERROR_QUIET)
execute_process(COMMAND ${CMAKE_COMMAND} -E touch ${cache}/CACHEDIR.TAG RESULT_VARIABLE read_only ERROR_QUIET)
if(NOT read_only)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
    CCACHE_DIR=${cache} CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_ABSSTDERR=true
    CCACHE_DEPEND=true CCACHE_SLOPPINESS=pch_defines,time_macros ${SMLP_CCACHE})
endif()
