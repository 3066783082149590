#pragma once

#include <pybind11/pybind11.h>

namespace exp3rt {

// One subject each; module.cc calls them in this order.
void bind_request(pybind11::module_& module);   // RerankGroup, GroupResult, CandidateResult, ExecutorStats
void bind_engine(pybind11::module_& module);    // ModelConfig, TensorEntry, ExecutorOptions
void bind_executor(pybind11::module_& module);  // CpuExecutor
void bind_trtllm(pybind11::module_& module);    // TrtLlmExecutor, where the package is built with TensorRT-LLM
void bind_packing(pybind11::module_& module);   // pack_matrix, to_bf16, cpu_isa, isa_at_least

}  // namespace exp3rt
