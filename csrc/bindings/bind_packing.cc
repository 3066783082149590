#include <pybind11/numpy.h>

#include <stdexcept>

#include "bindings/bindings.h"
#include "ops/bfloat16.h"
#include "ops/isa.h"
#include "ops/packed_matrix.h"

namespace py = pybind11;

namespace exp3rt {
namespace {

using FloatArray = py::array_t<float, py::array::c_style | py::array::forcecast>;

py::array pack_matrix(const FloatArray& w, const std::string& dtype_name) {
  if (w.ndim() != 2) throw std::invalid_argument("pack_matrix: w must have two dimensions");
  const DataType dtype = parse_data_type(dtype_name);
  if (dtype == DataType::kInt8) throw std::invalid_argument("pack_matrix: int8 goes through pack_matrix_int8");
  const PackedMatrix matrix{.n = w.shape(0), .k = w.shape(1), .dtype = dtype};
  const std::vector<py::ssize_t> shape = {matrix.num_panels(), padded_rows(dtype, matrix.k), kPanelColumns};
  py::array out =
      dtype == DataType::kFloat32 ? py::array(py::array_t<float>(shape)) : py::array(py::array_t<bfloat16>(shape));
  void* data = out.mutable_data();
  const float* from = w.data();
  const py::gil_scoped_release release;
  pack(from, matrix.n, matrix.k, dtype, data);
  return out;
}

py::tuple pack_matrix_int8(const FloatArray& w) {
  if (w.ndim() != 2) throw std::invalid_argument("pack_matrix_int8: w must have two dimensions");
  const PackedMatrix matrix{.n = w.shape(0), .k = w.shape(1), .dtype = DataType::kInt8};
  py::array_t<std::int8_t> packed({matrix.num_panels(), padded_rows(matrix.dtype, matrix.k), kPanelColumns});
  py::array_t<float> scale(matrix.n), sum(matrix.n);
  std::int8_t* to = packed.mutable_data();
  float* scale_data = scale.mutable_data();
  float* sum_data = sum.mutable_data();
  const float* from = w.data();
  {
    const py::gil_scoped_release release;
    pack_int8(from, matrix.n, matrix.k, to, scale_data, sum_data);
  }
  return py::make_tuple(packed, scale, sum);
}

py::array_t<bfloat16> to_bf16(const FloatArray& x) {
  py::array_t<bfloat16> out(std::vector<py::ssize_t>(x.shape(), x.shape() + x.ndim()));
  bfloat16* to = out.mutable_data();
  const float* from = x.data();
  const py::ssize_t size = x.size();
  const py::gil_scoped_release release;
  for (py::ssize_t i = 0; i < size; ++i) to[i] = to_bfloat16(from[i]);
  return out;
}

}  // namespace

void bind_packing(py::module_& module) {
  module.def(
      "pack_matrix", &pack_matrix, py::arg("w"), py::arg("dtype"),
      "Packs W float32 [n, k] for y = x Wᵀ: [ceil(n / 64), padded k, 64], float32 (\"fp32\") or uint16 (\"bf16\").");
  module.def("pack_matrix_int8", &pack_matrix_int8, py::arg("w"),
             "Quantizes W float32 [n, k], one scale a row, and packs it: int8 [ceil(n / 64), padded k, 64], the scales "
             "and the sums of each row's integers, both float32 [n].");
  module.def("to_bf16", &to_bf16, py::arg("x"), "Rounds float32 to bfloat16, to nearest even; as uint16, same shape.");
  module.def("cpu_isa", [] { return to_string(cpu_isa()); }, "none, avx2, avx512, avx512_vnni, avx512_bf16 or amx.");
  module.def(
      "isa_at_least",
      [](const std::string& have, const std::string& need) { return parse_isa(have) >= parse_isa(need); },
      py::arg("have"), py::arg("need"));
}

}  // namespace exp3rt
