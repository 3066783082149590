#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include "bindings/bindings.h"
#include "executor/cpu_executor.h"
#include "ops/isa.h"

namespace py = pybind11;

namespace exp3rt {
namespace {

// A Python callable as the executor's OnDone. It is called, and let go, with the GIL held.
Executor::OnDone wrap(py::function on_done) {
  auto shared = std::shared_ptr<py::function>(new py::function(std::move(on_done)), [](py::function* function) {
    const py::gil_scoped_acquire gil;
    delete function;
  });
  return [shared = std::move(shared)](GroupResult result) {
    const py::gil_scoped_acquire gil;
    try {
      if (result.error.empty()) {
        (*shared)(std::move(result), py::none());
      } else {
        (*shared)(py::none(), result.error);
      }
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("exp3rt_trt: on_done");
    }
  };
}

Executor::Id submit(CpuExecutor& executor, RerankGroup group, py::function on_done) {
  Executor::OnDone callback = wrap(std::move(on_done));
  const py::gil_scoped_release release;
  return executor.submit(std::move(group), std::move(callback));
}

}  // namespace

void bind_executor(py::module_& module) {
  using Released = py::call_guard<py::gil_scoped_release>;
  // Destroying an executor joins its thread, which may be waiting for the GIL.
  struct Close {
    void operator()(CpuExecutor* executor) const {
      const py::gil_scoped_release release;
      delete executor;
    }
  };
  py::class_<CpuExecutor, std::unique_ptr<CpuExecutor, Close>>(module, "CpuExecutor",
                                                               "Runs groups on the CPU, in a thread of its own.")
      .def(py::init<const std::string&, const std::vector<TensorEntry>&, const ModelConfig&, const ExecutorOptions&>(),
           py::arg("weights_path"), py::arg("tensors"), py::arg("config"), py::arg("options"), Released())
      .def("submit", &submit, py::arg("group"), py::arg("on_done"),
           "Returns an id at once; on_done(result | None, error | None) is called once, from the executor's thread.")
      .def("cancel", &CpuExecutor::cancel, py::arg("id"), Released())
      .def("stats", &CpuExecutor::stats, Released())
      .def("close", &CpuExecutor::close, Released(), "Groups without a result get an error.")
      .def_property_readonly("threads", &CpuExecutor::num_threads)
      .def_property_readonly("isa", [](const CpuExecutor&) { return to_string(cpu_isa()); });
}

}  // namespace exp3rt
