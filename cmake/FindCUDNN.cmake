# CUDNN::frontend, where cudnn.h and the headers of cuDNN's C++ front end are: beside CUDA, where the system keeps headers, where
# scripts/cudnn_frontend.sh leaves them, or under CUDNN_ROOT and CUDNN_FRONTEND_ROOT. The library is opened by the program itself;
# CUDNN_LIBRARY says where it is on this machine, for one more place to look.
find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${CUDAToolkit_LIBRARY_DIR})
find_path(CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h
  HINTS ${CUDNN_FRONTEND_ROOT} $ENV{CUDNN_FRONTEND_ROOT} ${CUDNN_ROOT} $ENV{CUDNN_ROOT}
  PATHS ${CUDAToolkit_INCLUDE_DIRS} $ENV{XDG_CACHE_HOME}/smlp/cudnn-frontend $ENV{HOME}/.cache/smlp/cudnn-frontend
  PATH_SUFFIXES include)
if(CUDNN_INCLUDE_DIR AND EXISTS ${CUDNN_INCLUDE_DIR}/cudnn_version.h)
  file(STRINGS ${CUDNN_INCLUDE_DIR}/cudnn_version.h numbers REGEX "#define CUDNN_(MAJOR|MINOR|PATCHLEVEL) ")
  string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCHLEVEL ([0-9]+).*" "\\1.\\2.\\3" CUDNN_VERSION "${numbers}")
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CUDNN REQUIRED_VARS CUDNN_INCLUDE_DIR CUDNN_FRONTEND_INCLUDE_DIR VERSION_VAR CUDNN_VERSION)
if(CUDNN_FOUND AND NOT TARGET CUDNN::frontend)
  if(CUDNN_LIBRARY)
    get_filename_component(CUDNN_FOLDER ${CUDNN_LIBRARY} DIRECTORY)
  endif()
  add_library(CUDNN::frontend INTERFACE IMPORTED)
  target_include_directories(CUDNN::frontend INTERFACE ${CUDNN_FRONTEND_INCLUDE_DIR} ${CUDNN_INCLUDE_DIR})
  target_compile_definitions(CUDNN::frontend INTERFACE CUDNN_FRONTEND_SKIP_JSON_LIB
    NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING SMLP_CUDNN_FOLDER="${CUDNN_FOLDER}")
endif()
