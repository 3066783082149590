#include "bindings/bind_executor.h"

#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include "bindings/bindings.h"
#include "executor/cpu_executor.h"
#include "ops/isa.h"

namespace exp3rt {

void bind_executor(py::module_& module) {
  using Released = py::call_guard<py::gil_scoped_release>;
  auto cpu = bind_executor_class<CpuExecutor>(module, "CpuExecutor", "Runs groups on the CPU, in a thread of its own.");
  cpu.def(py::init<const std::string&, const std::vector<TensorEntry>&, const ModelConfig&, const ExecutorOptions&>(),
          py::arg("weights_path"), py::arg("tensors"), py::arg("config"), py::arg("options"), Released())
      .def_property_readonly("threads", &CpuExecutor::num_threads)
      .def_property_readonly(
          "item_format", [](const CpuExecutor& executor) { return executor.item_format().name(); },
          "How the keys and values of items are kept: those of another format cannot be read.")
      .def(
          "item_bytes",
          [](const CpuExecutor& executor, int num_tokens) { return executor.item_format().num_bytes(num_tokens); },
          py::arg("num_tokens"))
      .def_property_readonly("isa", [](const CpuExecutor&) { return to_string(cpu_isa()); });
}

}  // namespace exp3rt
