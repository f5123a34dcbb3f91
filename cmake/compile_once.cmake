# Through ccache, where it is: files that builds of this tree compile alike, with CUDA and without, are compiled once. The cache
# is the tree's own, and found for build folders at one depth (tests/system/builds.py). CCACHE_DISABLE=1 does without.
find_program(SMLP_CCACHE ccache)
if(SMLP_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
    CCACHE_DIR=${CMAKE_SOURCE_DIR}/.cache/ccache CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_ABSSTDERR=true
    CCACHE_DEPEND=true CCACHE_SLOPPINESS=pch_defines,time_macros ${SMLP_CCACHE})
endif()
