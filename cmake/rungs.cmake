# Flags and helpers for the rungs of the ladder in csrc/ (see CONTRIBUTING.md).

# What every C++ target of ours is compiled with. No -march: the wheel runs on any x86-64 with AVX2, and code for
# wider vectors is chosen at run time.
add_library(exp3rt_flags INTERFACE)
target_include_directories(exp3rt_flags INTERFACE ${CMAKE_SOURCE_DIR}/csrc)
target_compile_options(exp3rt_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow)
if(EXP3RT_WARNINGS_AS_ERRORS)
  target_compile_options(exp3rt_flags INTERFACE -Werror)
endif()

# exp3rt_add_rung(<name> SOURCES <files> DEPENDS <lower rungs and libraries> [PRIVATE_DEPENDS <libraries>])
#
# One static library exp3rt_<name>. DEPENDS are visible to the rungs above, PRIVATE_DEPENDS only to the rung itself.
# A rung of headers only becomes an interface library, so that it can still be linked to by name.
function(exp3rt_add_rung name)
  cmake_parse_arguments(PARSE_ARGV 1 RUNG "" "" "SOURCES;DEPENDS;PRIVATE_DEPENDS")
  set(target exp3rt_${name})
  if(RUNG_SOURCES)
    add_library(${target} STATIC ${RUNG_SOURCES})
    target_link_libraries(${target} PUBLIC exp3rt_flags ${RUNG_DEPENDS} PRIVATE ${RUNG_PRIVATE_DEPENDS})
  else()
    add_library(${target} INTERFACE)
    target_link_libraries(${target} INTERFACE exp3rt_flags ${RUNG_DEPENDS})
  endif()
endfunction()

# exp3rt_add_kernels(<isa> FLAGS <flags> SOURCES <files>)
#
# Compiles sources for one instruction set, as objects. Such a source may define nothing that other objects could
# define too (inline functions, templates): the linker would keep one copy for all, perhaps the one that this
# machine cannot run. tests/cpp checks the objects for it.
function(exp3rt_add_kernels isa)
  cmake_parse_arguments(PARSE_ARGV 1 KERNELS "" "" "FLAGS;SOURCES")
  set(target exp3rt_kernels_${isa})
  add_library(${target} OBJECT ${KERNELS_SOURCES})
  target_link_libraries(${target} PRIVATE exp3rt_flags)
  target_compile_definitions(${target} PRIVATE EXP3RT_KERNELS=${isa})
  # No errno and no traps: the compiler may then turn a branch or a call to libm in a loop into vector code.
  # GCC 12 warns of its own intrinsics, which pass registers that were not set.
  target_compile_options(${target} PRIVATE ${KERNELS_FLAGS} -fopenmp-simd -fno-math-errno -fno-trapping-math -Wno-psabi
    -Wno-maybe-uninitialized)
endfunction()
