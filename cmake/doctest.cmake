# Finds the header of doctest, the framework of the C++ tests, and defines the target exp3rt_doctest.
#
# In this order: where -DEXP3RT_DOCTEST_INCLUDE_DIR=... says or an earlier run put it, the system's, the project's
# release, Debian's package (unpacked into the build folder: nothing is installed, no root is needed).

set(EXP3RT_DOCTEST_VERSION 2.4.9)
set(EXP3RT_DOCTEST_SHA256 041dced3b82ed2d6c920977fcba16e8b9e49daaa200c81ba0ccec529a4f1fd5d)
set(EXP3RT_DOCTEST_CACHE ${CMAKE_BINARY_DIR}/doctest)

# Downloads the header of the release. A machine without a way there loses ten seconds at most.
function(exp3rt_doctest_from_release)
  set(file ${EXP3RT_DOCTEST_CACHE}/include/doctest/doctest.h)
  file(DOWNLOAD
    https://raw.githubusercontent.com/doctest/doctest/v${EXP3RT_DOCTEST_VERSION}/doctest/doctest.h ${file}.part
    TIMEOUT 10 STATUS status)
  set(sum "")
  if(EXISTS ${file}.part)
    file(SHA256 ${file}.part sum)
  endif()
  if(sum STREQUAL EXP3RT_DOCTEST_SHA256)
    file(RENAME ${file}.part ${file})
  else()
    file(REMOVE ${file}.part)
    message(STATUS "doctest: its release could not be downloaded (${status})")
  endif()
endfunction()

# Downloads Debian's package, first with the lists that apt has, then with lists fetched into the build folder.
function(exp3rt_doctest_from_debian)
  find_program(EXP3RT_APT_GET apt-get)
  find_program(EXP3RT_DPKG dpkg)
  if(NOT EXP3RT_APT_GET OR NOT EXP3RT_DPKG)
    return()
  endif()
  set(apt ${EXP3RT_APT_GET} -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20)
  set(private -o Dir::State=${EXP3RT_DOCTEST_CACHE}/apt/state -o Dir::Cache=${EXP3RT_DOCTEST_CACHE}/apt/cache)
  set(quiet WORKING_DIRECTORY ${EXP3RT_DOCTEST_CACHE} TIMEOUT 180 RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
  file(MAKE_DIRECTORY ${EXP3RT_DOCTEST_CACHE}/apt/state/lists/partial
    ${EXP3RT_DOCTEST_CACHE}/apt/cache/archives/partial)
  execute_process(COMMAND ${apt} download doctest-dev ${quiet})
  if(failed)
    execute_process(COMMAND ${apt} ${private} update ${quiet})
    execute_process(COMMAND ${apt} ${private} download doctest-dev ${quiet})
  endif()
  file(GLOB package ${EXP3RT_DOCTEST_CACHE}/doctest-dev_*.deb)
  if(package)
    execute_process(COMMAND ${EXP3RT_DPKG} -x ${package} ${EXP3RT_DOCTEST_CACHE}/debian ${quiet})
    file(REMOVE ${package})
  endif()
  file(REMOVE_RECURSE ${EXP3RT_DOCTEST_CACHE}/apt)
endfunction()

macro(exp3rt_find_doctest)
  find_path(EXP3RT_DOCTEST_INCLUDE_DIR doctest/doctest.h
    HINTS ${EXP3RT_DOCTEST_CACHE}/include ${EXP3RT_DOCTEST_CACHE}/debian/usr/include)
endmacro()

exp3rt_find_doctest()
if(NOT EXP3RT_DOCTEST_INCLUDE_DIR)
  exp3rt_doctest_from_release()
  exp3rt_find_doctest()
endif()
if(NOT EXP3RT_DOCTEST_INCLUDE_DIR)
  exp3rt_doctest_from_debian()
  exp3rt_find_doctest()
endif()
if(NOT EXP3RT_DOCTEST_INCLUDE_DIR)
  message(FATAL_ERROR
    "The C++ tests need the header of doctest (doctest/doctest.h), and it could not be downloaded. Install it "
    "(Debian and Ubuntu: apt-get install doctest-dev) or give its folder: -DEXP3RT_DOCTEST_INCLUDE_DIR=...")
endif()
message(STATUS "doctest: ${EXP3RT_DOCTEST_INCLUDE_DIR}")

add_library(exp3rt_doctest INTERFACE)
target_include_directories(exp3rt_doctest SYSTEM INTERFACE ${EXP3RT_DOCTEST_INCLUDE_DIR})
