#include <pybind11/stl.h>

#include <stdexcept>

#include "bindings/bindings.h"
#include "core/model_config.h"
#include "executor/cpu_executor.h"
#include "model/weights.h"

namespace py = pybind11;

namespace exp3rt {
namespace {

DataType stored_type(const std::string& name) {
  if (name == "F32") return DataType::kFloat32;
  if (name == "BF16") return DataType::kBFloat16;
  if (name == "I8") return DataType::kInt8;
  throw std::invalid_argument("unknown tensor dtype '" + name + "'; known: F32, BF16, I8");
}

TensorEntry make_entry(std::string name, const std::string& dtype, std::vector<std::int64_t> shape, std::size_t offset,
                       std::size_t num_bytes) {
  return {std::move(name), stored_type(dtype), std::move(shape), offset, num_bytes};
}

ModelConfig make_config(int vocab_size, int hidden_size, int intermediate_size, int num_layers, int num_heads,
                        int num_kv_heads, int head_dim, float rms_norm_eps, int max_context, const std::string& dtype) {
  return {vocab_size,   hidden_size, intermediate_size, num_layers,  num_heads,
          num_kv_heads, head_dim,    rms_norm_eps,      max_context, parse_data_type(dtype)};
}

ExecutorOptions make_options(int threads, int max_batch_tokens, std::size_t kv_cache_bytes,
                             std::size_t item_cache_bytes, std::string item_kv_dtype) {
  return {threads, max_batch_tokens, kv_cache_bytes, item_cache_bytes, std::move(item_kv_dtype)};
}

}  // namespace

void bind_engine(py::module_& module) {
  py::class_<ModelConfig>(module, "ModelConfig", "Dimensions of the engine's model.")
      .def(py::init(&make_config), py::kw_only(), py::arg("vocab_size"), py::arg("hidden_size"),
           py::arg("intermediate_size"), py::arg("num_layers"), py::arg("num_heads"), py::arg("num_kv_heads"),
           py::arg("head_dim"), py::arg("rms_norm_eps"), py::arg("max_context"), py::arg("dtype"));
  py::class_<TensorEntry>(module, "TensorEntry",
                          "Where a tensor lies in the weights file; offset from the file's start.")
      .def(py::init(&make_entry), py::arg("name"), py::arg("dtype"), py::arg("shape"), py::arg("offset"),
           py::arg("num_bytes"));
  py::class_<ExecutorOptions>(module, "ExecutorOptions",
                              "Threads (0: the process's cores), batch tokens, bytes of the KV and of "
                              "the item cache; item_kv_dtype int8, or empty for the engine's own.")
      .def(py::init(&make_options), py::kw_only(), py::arg("threads") = 0, py::arg("max_batch_tokens") = 0,
           py::arg("kv_cache_bytes") = std::size_t{1} << 30, py::arg("item_cache_bytes") = std::size_t{1} << 30,
           py::arg("item_kv_dtype") = "");
}

}  // namespace exp3rt
