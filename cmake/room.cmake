# smlp_room(name FILES a.cpp ... LINKS other rooms and libraries [USES libraries] [PRECOMPILE <heavy/header.h> ...]
#   [TOGETHER n] [LIGHT])
# A static library of one folder, with headers included from the repository root. USES: libraries that its headers don't
# include; rooms above it are compiled without them. PRECOMPILE halves the build of a room whose files spend their time in the
# headers of libraries; each file still includes what it uses. TOGETHER compiles n files as one, which halves it again: names
# in their unnamed namespaces must differ then. LIGHT: as of smlp_options.
function(smlp_room name)
  cmake_parse_arguments(ROOM "LIGHT" "TOGETHER" "FILES;LINKS;USES;PRECOMPILE" ${ARGN})
  add_library(smlp_${name} STATIC ${ROOM_FILES})
  target_include_directories(smlp_${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(smlp_${name} PUBLIC ${ROOM_LINKS} PRIVATE ${ROOM_USES})
  if(ROOM_LIGHT)
    set(light LIGHT)
  endif()
  smlp_options(smlp_${name} ${light})
  if(ROOM_PRECOMPILE)
    target_precompile_headers(smlp_${name} PRIVATE <algorithm> <filesystem> <memory> <optional> <string> <vector>
      ${ROOM_PRECOMPILE})
  endif()
  if(ROOM_TOGETHER)
    set_target_properties(smlp_${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${ROOM_TOGETHER})
  endif()
endfunction()

# smlp_seconds(variable seconds): a time limit for a test. Sanitizers make programs several times slower.
function(smlp_seconds variable seconds)
  if(SMLP_SANITIZE)
    math(EXPR seconds "${seconds} * 4")
  endif()
  set(${variable} ${seconds} PARENT_SCOPE)
endfunction()

# smlp_test_program(name FILES ... LINKS ... [OPTIONS of the compiler])
# A GoogleTest program, whose files are compiled four as one (smlp_room, TOGETHER).
function(smlp_test_program name)
  cmake_parse_arguments(TEST "" "" "FILES;LINKS;OPTIONS" ${ARGN})
  add_executable(${name} ${TEST_FILES})
  target_link_libraries(${name} PRIVATE ${TEST_LINKS})
  smlp_options(${name} LIGHT)
  if(TEST_OPTIONS)
    target_compile_options(${name} PRIVATE ${TEST_OPTIONS})
    target_precompile_headers(${name} PRIVATE <gtest/gtest.h> <string> <vector>)
  else()
    target_precompile_headers(${name} REUSE_FROM test_headers)
  endif()
  set_target_properties(${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 4)
endfunction()

# `make test` has five places. A test with a clock or with ranks takes three of them; what only waits takes one, and so does what
# looks at no clock, at idle priority. So two cores do one of the first at a time, and wait, compute and compile (cuda_preset)
# with what it leaves. By COST those with a clock begin first, then those that wait: tests of one place would keep them waiting
# until the last such test is done, and they would then run alone.
set(smlp_has_a_clock PROCESSORS 3 COST 500)
set(smlp_waits PROCESSORS 1 COST 400)
set(smlp_gives_way ${CMAKE_SOURCE_DIR}/tests/system/give_way.py)

# smlp_test(name as of smlp_test_program ... [LABELS fast|mpi|slow] [RANKS n | GIVES_WAY | WAITS] [TIMEOUT seconds])
# The program, unless it is there, and a test that runs it; with RANKS under mpirun.
function(smlp_test name)
  cmake_parse_arguments(TEST "GIVES_WAY;WAITS" "RANKS;TIMEOUT" "FILES;LINKS;OPTIONS;LABELS" ${ARGN})
  if(NOT TEST_TIMEOUT)
    set(TEST_TIMEOUT 120)
  endif()
  smlp_seconds(limit ${TEST_TIMEOUT})
  if(NOT TARGET ${name})
    smlp_test_program(${name} FILES ${TEST_FILES} LINKS ${TEST_LINKS} OPTIONS ${TEST_OPTIONS})
  endif()
  set(command $<TARGET_FILE:${name}>)
  set(test_name ${name})
  set(way ${smlp_has_a_clock})
  if(TEST_GIVES_WAY)
    set(way PROCESSORS 1)
    set(command ${smlp_gives_way} ${command})
  elseif(TEST_WAITS)
    set(way ${smlp_waits})
  elseif(TEST_RANKS)
    set(command ${MPIEXEC_EXECUTABLE} --allow-run-as-root --oversubscribe --bind-to none -n ${TEST_RANKS} ${command})
    set(test_name ${name}_${TEST_RANKS}_ranks)
  endif()
  add_test(NAME ${test_name} COMMAND ${command} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${test_name} PROPERTIES TIMEOUT ${limit} LABELS "${TEST_LABELS}" ${way}
    ENVIRONMENT "OMP_NUM_THREADS=1;OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMPI_MCA_mpi_yield_when_idle=1")
endfunction()

# smlp_options(target [LIGHT]): warnings, sanitizers and less work for the compiler. LIGHT, for what computes nothing by itself,
# and tests: -Og, half of -O3's time.
function(smlp_options target)
  # GCC 12 sees overlaps in std::string's operator+ that are not there (its bug 105651).
  target_compile_options(${target} PRIVATE
    "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wconversion;-Wno-sign-conversion>"
    "$<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>"
    "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>")
  if(LIGHT IN_LIST ARGN)
    target_compile_options(${target} PRIVATE $<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-Og>)
  endif()
  if(SMLP_FUZZ)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
  if(SMLP_SANITIZE)
    # Beside the address sanitizer GCC 12 takes the closures of std::regex for uninitialised (its bug 105562).
    target_compile_options(${target} PRIVATE
      -fsanitize=${SMLP_SANITIZE} -fno-sanitize-recover=undefined -fno-omit-frame-pointer
      $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-maybe-uninitialized>)
    target_link_options(${target} PRIVATE -fsanitize=${SMLP_SANITIZE})
    target_compile_definitions(${target} PRIVATE SMLP_SANITIZED)
    get_target_property(kind ${target} TYPE)
    if(kind STREQUAL "EXECUTABLE")
      target_sources(${target} PRIVATE ${CMAKE_SOURCE_DIR}/tests/sanitizers/defaults.cpp)
    endif()
  endif()
endfunction()
