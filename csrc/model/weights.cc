#include "model/weights.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <stdexcept>

#include "ops/isa.h"

namespace exp3rt {
namespace {

std::string text(const std::vector<std::int64_t>& shape) {
  std::string out = "[";
  for (const std::int64_t size : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(size);
  return out + "]";
}

const char* text(DataType dtype) {
  switch (dtype) {
    case DataType::kFloat32: return "F32";
    case DataType::kBFloat16: return "BF16";
    case DataType::kInt8: return "I8";
  }
  return "?";
}

}  // namespace

Weights::Weights(const std::string& path, const std::vector<TensorEntry>& tensors) : path_(path), file_(path) {
  for (const TensorEntry& tensor : tensors) tensors_.emplace(tensor.name, tensor);
}

const std::byte* Weights::find(const std::string& name, DataType dtype, const std::vector<std::int64_t>& shape) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) throw std::runtime_error(path_ + ": tensor " + name + " is missing");
  const TensorEntry& tensor = found->second;
  if (tensor.dtype != dtype || tensor.shape != shape) {
    throw std::runtime_error(path_ + ": tensor " + name + " is " + text(tensor.dtype) + " " + text(tensor.shape) +
                             ", expected " + text(dtype) + " " + text(shape));
  }
  const auto count = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
  const std::size_t bytes = static_cast<std::size_t>(count) * size_of(dtype);
  if (tensor.num_bytes != bytes || tensor.offset > file_.size() || bytes > file_.size() - tensor.offset) {
    throw std::runtime_error(path_ + ": tensor " + name + " lies outside the file; the file is truncated or damaged");
  }
  return file_.data() + tensor.offset;
}

PackedMatrix Weights::matrix(const std::string& name, std::int64_t n, std::int64_t k, DataType dtype) {
  const auto found = tensors_.find(name);
  const bool quantized = found != tensors_.end() && found->second.dtype == DataType::kInt8;
  PackedMatrix matrix{.n = n, .k = k, .dtype = quantized ? DataType::kInt8 : dtype};
  matrix.data = find(name, matrix.dtype, {matrix.num_panels(), padded_rows(matrix.dtype, k), kPanelColumns});
  if (quantized) {
    matrix.scale = vector(name + ".scale", n);
    matrix.offset = offsets(name + ".sum", n);
  }
  if (compute_type(matrix.dtype) == matrix.dtype) return matrix;
  const std::vector<float>& wide = widened_.emplace_back(widen(matrix));
  return {.data = wide.data(), .n = n, .k = k};
}

// Integers are kept as their sums, which activations' zero point of 128 multiplies.
const std::int32_t* Weights::offsets(const std::string& name, std::int64_t n) {
  const float* sums = vector(name, n);
  std::vector<std::int32_t>& offsets = offsets_.emplace_back();
  std::transform(sums, sums + n, std::back_inserter(offsets), [](float sum) { return static_cast<int>(sum) * 128; });
  return offsets.data();
}

const float* Weights::vector(const std::string& name, std::int64_t n) const {
  return reinterpret_cast<const float*>(find(name, DataType::kFloat32, {n}));
}

const float* Weights::optional_vector(const std::string& name, std::int64_t n) const {
  return tensors_.contains(name) ? vector(name, n) : nullptr;
}

const std::byte* Weights::rows(const std::string& name, std::int64_t n, std::int64_t k, DataType dtype) const {
  return find(name, dtype, {n, k});
}

}  // namespace exp3rt
