#include "ops/linear.h"

#include <algorithm>

#include "ops/store.h"
#include "ops/vector_kernels.h"

namespace exp3rt {
namespace {

constexpr float kRestScale = 1.0f / 254;  // of a quantized rest: half a step of the value is 127 of its steps

std::uint8_t* bytes(std::byte* data) { return reinterpret_cast<std::uint8_t*>(data); }

// The sums of quantized numbers in `y` become what they stand for.
void dequantize(const PackedMatrix& w, const Activations& x, float* y) {
  const VectorKernels& kernels = vector_kernels();
  for (int i = 0; i < x.num_rows(); ++i) {
    float* row = y + i * w.n;
    kernels.dequantize(row, w.offset, w.scale, x.scale(i), w.n, row);
    if (!x.precise()) continue;
    float* rest = y + (x.num_rows() + i) * w.n;
    kernels.dequantize(rest, w.offset, w.scale, x.scale(i) * kRestScale, w.n, rest);
  }
}

}  // namespace

void Activations::start(DataType dtype, int num_rows, std::int64_t width, bool precise) {
  dtype_ = dtype;
  num_rows_ = num_rows;
  width_ = width;
  precise_ = precise && dtype != DataType::kFloat32;
  scales_.resize(static_cast<std::size_t>(num_rows));
  const auto rows = static_cast<std::size_t>(MatMul::padded_row_count(product_rows()));
  data_ = buffer_.get<std::byte>(rows * static_cast<std::size_t>(width) * size_of(dtype));
}

void Activations::set(int index, const float* values) {
  std::byte* value = row(index);
  std::byte* rest = precise_ ? row(num_rows_ + index) : nullptr;
  if (dtype_ == DataType::kInt8) {
    quantize(index, values, value, rest);
  } else if (precise_) {
    store_split(values, width_, value, rest);
  } else {
    store(dtype_, values, width_, value);
  }
}

void Activations::quantize(int index, const float* values, std::byte* value, std::byte* rest) {
  const VectorKernels& kernels = vector_kernels();
  float* turned = turned_buffer_.get<float>(static_cast<std::size_t>(width_));
  std::copy_n(values, width_, turned);
  const std::int64_t block = hadamard_block(width_);
  if (block > 0) kernels.hadamard(turned, width_, block);
  scales_[static_cast<std::size_t>(index)] = precise_
                                                 ? kernels.quantize_split(turned, width_, bytes(value), bytes(rest))
                                                 : kernels.quantize(turned, width_, bytes(value));
}

void multiply(const MatMul& product, const PackedMatrix& w, const Activations& x, float* y) {
  product(x.data(), w, y, x.product_rows());
  if (w.dtype == DataType::kInt8) dequantize(w, x, y);
  if (!x.precise()) return;
  const std::int64_t size = x.num_rows() * w.n;
  vector_kernels().scale_add(y, 1.0f, y + size, size);
}

}  // namespace exp3rt
