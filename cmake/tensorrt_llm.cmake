# Finds TensorRT-LLM, if -DEXP3RT_TENSORRT_LLM_DIR=... says where; without it the build goes on without.
#
# With headers and libraries, the extension gets TrtLlmExecutor. With headers alone, the adapter is only compiled
# (target exp3rt_trtllm): a check that needs neither a GPU nor NVIDIA's libraries.
#
# Sets EXP3RT_TRTLLM_INCLUDE_DIRS (empty: no headers) and EXP3RT_TRTLLM_LIBRARIES (empty: none, or not to be used).

set(EXP3RT_TENSORRT_LLM_DIR "" CACHE PATH "Folder of TensorRT-LLM 1.2: include/ or cpp/include/, and lib/ or libs/")
set(EXP3RT_CUDA_INCLUDE_DIR "" CACHE STRING "Folders of CUDA's headers; found by itself where CUDA is installed")
option(EXP3RT_TENSORRT_LLM_COMPILE_ONLY "Compile the adapter to TensorRT-LLM, and leave it out of the extension" OFF)

# Sets <variable> to a folder with the file, or stops the build with the hint.
function(exp3rt_require_headers variable file hint)
  find_path(folder ${file} PATHS ${ARGN} NO_DEFAULT_PATH NO_CACHE)
  if(NOT folder)
    message(FATAL_ERROR "TensorRT-LLM was asked for, but ${file} was not found in: ${ARGN}. ${hint}")
  endif()
  set(${variable} ${folder} PARENT_SCOPE)
endfunction()

# The library's std::string decides ours: symbols of the newer libstdc++ ABI carry __cxx11.
function(exp3rt_use_abi_of library)
  execute_process(COMMAND ${CMAKE_NM} -D ${library} OUTPUT_VARIABLE symbols ERROR_VARIABLE error RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "The symbols of ${library} could not be read: ${error}")
  endif()
  string(FIND "${symbols}" "__cxx11" place)
  if(place EQUAL -1)
    message(STATUS "TensorRT-LLM: built with the older libstdc++ ABI, and so are we")
    add_compile_definitions(_GLIBCXX_USE_CXX11_ABI=0)
  endif()
endfunction()

set(EXP3RT_TRTLLM_INCLUDE_DIRS "")
set(EXP3RT_TRTLLM_LIBRARIES "")
if(EXP3RT_TENSORRT_LLM_DIR)
  set(root ${EXP3RT_TENSORRT_LLM_DIR})
  find_package(CUDAToolkit QUIET)
  exp3rt_require_headers(trtllm_headers tensorrt_llm/executor/executor.h
    "The wheel has no headers; NVIDIA's release container has them in /app/tensorrt_llm/include."
    ${root}/include ${root}/cpp/include ${root})
  exp3rt_require_headers(cuda_headers cuda_fp16.h "Give -DEXP3RT_CUDA_INCLUDE_DIR=..."
    ${EXP3RT_CUDA_INCLUDE_DIR} ${CUDAToolkit_INCLUDE_DIRS} /usr/local/cuda/include)
  set(EXP3RT_TRTLLM_INCLUDE_DIRS ${trtllm_headers} ${cuda_headers} ${EXP3RT_CUDA_INCLUDE_DIR})
  foreach(name tensorrt_llm nvinfer_plugin_tensorrt_llm)  # the second one has initTrtLlmPlugins
    find_library(EXP3RT_LIBRARY_${name} ${name} PATHS ${root}/lib ${root}/libs ${root}/cpp/build/tensorrt_llm
      PATH_SUFFIXES plugins NO_DEFAULT_PATH)
  endforeach()
  if(EXP3RT_TENSORRT_LLM_COMPILE_ONLY)
    message(STATUS "TensorRT-LLM: ${trtllm_headers}; compiled only, as asked")
  elseif(EXP3RT_LIBRARY_tensorrt_llm AND EXP3RT_LIBRARY_nvinfer_plugin_tensorrt_llm)
    set(EXP3RT_TRTLLM_LIBRARIES ${EXP3RT_LIBRARY_tensorrt_llm} ${EXP3RT_LIBRARY_nvinfer_plugin_tensorrt_llm})
    exp3rt_use_abi_of(${EXP3RT_LIBRARY_tensorrt_llm})
    message(STATUS "TensorRT-LLM: ${trtllm_headers}, ${EXP3RT_TRTLLM_LIBRARIES}")
  else()
    message(STATUS "TensorRT-LLM: ${trtllm_headers}; compiled only, because ${root} has no libraries")
  endif()
endif()
