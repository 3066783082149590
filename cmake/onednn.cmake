# Finds oneDNN: where -Ddnnl_DIR=... says, else in the wheel onednn-devel-cpu-gomp of this Python, else on the system.
#
# pip installs the wheel's CMake files and libraries as "data files", whose place depends on the environment (in a
# build environment of pip's it is an overlay that exists only during the build), so the wheel's own record is asked.

# Sets <variable> to the first file of an installed distribution whose path ends so, or to an empty string.
function(exp3rt_distribution_file variable distribution ending)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "
import importlib.metadata, sys
try:
    files = importlib.metadata.files(sys.argv[1]) or []
except importlib.metadata.PackageNotFoundError:
    files = []
found = [file.locate().resolve() for file in files if file.as_posix().endswith(sys.argv[2])]
print(next((path.as_posix() for path in found if path.is_file()), ''))
" ${distribution} ${ending}
    OUTPUT_VARIABLE path OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(${variable} "${path}" PARENT_SCOPE)
endfunction()

if(NOT EXISTS "${dnnl_DIR}/dnnl-config.cmake")
  exp3rt_distribution_file(config onednn-devel-cpu-gomp lib/cmake/dnnl/dnnl-config.cmake)
  if(config)
    get_filename_component(config_dir ${config} DIRECTORY)
    set(dnnl_DIR ${config_dir} CACHE PATH "Folder of dnnl-config.cmake" FORCE)
  endif()
endif()
find_package(dnnl CONFIG QUIET)
if(NOT dnnl_FOUND)
  message(FATAL_ERROR
    "oneDNN was not found. Install its wheel into the Python that builds (${Python_EXECUTABLE}):\n"
    "    pip install onednn-devel-cpu-gomp==2023.2.0\n"
    "or give the folder of an installed oneDNN's dnnl-config.cmake: -Ddnnl_DIR=...")
endif()
message(STATUS "oneDNN: ${dnnl_DIR}")

# The library and its licences travel with the extension, in <package>/lib, where its RPATH ($ORIGIN/lib) looks.
# The wheel carries three copies of the library; the one that its soname asks for is enough.
function(exp3rt_install_onednn destination)
  get_target_property(type DNNL::dnnl TYPE)
  if(type STREQUAL "SHARED_LIBRARY")
    install(FILES $<TARGET_FILE:DNNL::dnnl> DESTINATION ${destination} RENAME $<TARGET_SONAME_FILE_NAME:DNNL::dnnl>)
  endif()
  foreach(text LICENSE THIRD-PARTY-PROGRAMS)
    install(FILES ${dnnl_DIR}/../../../share/doc/onednn/${text} DESTINATION ${destination}/onednn OPTIONAL)
  endforeach()
endfunction()
