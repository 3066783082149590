# cmake -DNM=... -DOBJECTS=a.o;b.o -P check_kernels.cmake
#
# An object that was compiled for a wide instruction set may define no weak symbol (an inline function or a template's
# instance that the compiler did not inline): the linker keeps one copy of such a symbol for the whole library, and
# if it is this one, the library stops with an illegal instruction on a machine that lacks the instruction set.
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --defined-only --demangle ${object} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[0-9a-f]+ [uVW] [^\n]+" weak "${symbols}")
  if(weak)
    list(JOIN weak "\n    " weak)
    message(FATAL_ERROR "${object} defines symbols that other objects may define too:\n    ${weak}")
  endif()
endforeach()
