#include "bindings/bindings.h"

PYBIND11_MODULE(_core, module) {
  module.doc() = "The C++ core of exp3rt_trt: groups of token ids in, label logits out.";
  module.attr("__version__") = EXP3RT_VERSION;
  exp3rt::bind_request(module);
  exp3rt::bind_engine(module);
  exp3rt::bind_executor(module);
#ifdef EXP3RT_WITH_TENSORRT_LLM
  exp3rt::bind_trtllm(module);
  module.attr("built_with_tensorrt_llm") = true;
#else
  module.attr("built_with_tensorrt_llm") = false;
#endif
  exp3rt::bind_packing(module);
}
