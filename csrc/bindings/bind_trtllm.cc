// Compiled only where the package is built with TensorRT-LLM.
#include "bindings/bind_executor.h"
#include "bindings/bindings.h"
#include "executor/trtllm_executor.h"

namespace exp3rt {

void bind_trtllm(py::module_& module) {
  const auto make = [](std::string engine_dir, int vocab_size, int max_context, int tokens_per_block,
                       int max_batch_size, int max_num_tokens, double kv_memory_fraction, int device) {
    TrtLlmOptions options;
    options.engine_dir = std::move(engine_dir);
    options.vocab_size = vocab_size;
    options.max_context = max_context;
    options.tokens_per_block = tokens_per_block;
    options.max_batch_size = max_batch_size;
    options.max_num_tokens = max_num_tokens;
    options.kv_memory_fraction = kv_memory_fraction;
    options.device = device;
    const py::gil_scoped_release release;
    return std::unique_ptr<TrtLlmExecutor, DeleteWithoutGil<TrtLlmExecutor>>(new TrtLlmExecutor(options));
  };
  auto bound = bind_executor_class<TrtLlmExecutor>(module, "TrtLlmExecutor",
                                                   "Runs groups on a TensorRT-LLM engine of one GPU, in this process.");
  bound.def(py::init(make), py::arg("engine_dir"), py::kw_only(), py::arg("vocab_size"), py::arg("max_context"),
            py::arg("tokens_per_block"), py::arg("max_batch_size") = 0, py::arg("max_num_tokens") = 0,
            py::arg("kv_memory_fraction") = 0.9, py::arg("device") = 0,
            "max_batch_size and max_num_tokens: 0 for the engine's.");
}

}  // namespace exp3rt
