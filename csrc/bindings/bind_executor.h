#pragma once

#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <memory>
#include <utility>

#include "bindings/bindings.h"
#include "executor/executor.h"

namespace exp3rt {

namespace py = pybind11;

// A Python callable as the executor's OnDone. It is called, and let go, with the GIL held.
inline Executor::OnDone wrap(py::function on_done) {
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

inline Executor::Id submit(Executor& executor, RerankGroup group, py::function on_done) {
  Executor::OnDone callback = wrap(std::move(on_done));
  const py::gil_scoped_release release;
  return executor.submit(std::move(group), std::move(callback));
}

// Destroying an executor joins its thread, which may be waiting for the GIL.
template <typename T>
struct DeleteWithoutGil {
  void operator()(T* executor) const {
    const py::gil_scoped_release release;
    delete executor;
  }
};

// A kind of executor, with what all of them can do.
template <typename T>
py::class_<T, std::unique_ptr<T, DeleteWithoutGil<T>>> bind_executor_class(py::module_& module, const char* name,
                                                                           const char* doc) {
  using Released = py::call_guard<py::gil_scoped_release>;
  py::class_<T, std::unique_ptr<T, DeleteWithoutGil<T>>> bound(module, name, doc);
  bound
      .def(
          "submit",
          [](T& executor, RerankGroup group, py::function on_done) {
            return submit(executor, std::move(group), std::move(on_done));
          },
          py::arg("group"), py::arg("on_done"),
          "Returns an id at once; on_done(result | None, error | None) is called once, from the executor's thread.")
      .def("cancel", &T::cancel, py::arg("id"), Released())
      .def("stats", &T::stats, Released())
      .def("close", &T::close, Released(), "Groups without a result get an error.");
  return bound;
}

}  // namespace exp3rt
