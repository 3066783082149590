#include "ops/linear.h"

#include <algorithm>

#include "ops/aligned_buffer.h"
#include "ops/store.h"
#include "ops/vector_kernels.h"

namespace exp3rt {
namespace {

constexpr float kRestScale = 1.0f / 254;  // of a quantized rest: half a step of the value is 127 of its steps

std::uint8_t* bytes(std::byte* data) { return reinterpret_cast<std::uint8_t*>(data); }

bool doubled(DataType dtype, bool precise) { return precise && dtype != DataType::kFloat32; }

std::size_t scale_bytes(int num_rows) {
  return static_cast<std::size_t>(round_up(num_rows, 16)) * sizeof(float);  // whole cache lines
}

}  // namespace

Activations::Activations(DataType dtype, int num_rows, std::int64_t width, bool precise, std::byte* memory)
    : dtype_(dtype),
      num_rows_(num_rows),
      width_(width),
      precise_(doubled(dtype, precise)),
      scales_(reinterpret_cast<float*>(memory)),
      data_(memory + scale_bytes(num_rows)) {}

std::size_t Activations::num_bytes(DataType dtype, int num_rows, std::int64_t width, bool precise) {
  const auto rows = static_cast<std::size_t>(padded_row_count(doubled(dtype, precise) ? 2 * num_rows : num_rows));
  return scale_bytes(num_rows) + rows * static_cast<std::size_t>(width) * size_of(dtype);
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
  thread_local AlignedBuffer buffer;
  const VectorKernels& kernels = vector_kernels();
  float* turned = buffer.get<float>(static_cast<std::size_t>(width_));
  std::copy_n(values, width_, turned);
  const std::int64_t block = hadamard_block(width_);
  if (block > 0) kernels.hadamard(turned, width_, block);
  scales_[index] = precise_ ? kernels.quantize_split(turned, width_, bytes(value), bytes(rest))
                            : kernels.quantize(turned, width_, bytes(value));
}

void multiply(const PackedMatrix& w, const Activations& x, Range panels, float* y) {
  if (panels.empty()) return;
  thread_local AlignedBuffer buffer;
  const VectorKernels& kernels = vector_kernels();
  const PackedMatrix part = w.panels(panels.begin, panels.size());
  const auto size = static_cast<std::size_t>(padded_row_count(x.product_rows()) * part.n);
  const bool whole = part.n == w.n;
  float* sums = whole ? y : buffer.get<float>(size);  // a product's result is dense
  matmul(x.data(), part, sums, x.product_rows());
  const bool quantized = w.dtype == DataType::kInt8;  // the sums become what they stand for
  for (int i = 0; i < x.num_rows(); ++i) {
    float* row = sums + i * part.n;
    float* rest = sums + (x.num_rows() + i) * part.n;
    if (quantized) kernels.dequantize(row, part.offset, part.scale, x.scale(i), part.n, row);
    if (quantized && x.precise()) {
      kernels.dequantize(rest, part.offset, part.scale, x.scale(i) * kRestScale, part.n, rest);
    }
    if (x.precise()) kernels.scale_add(row, 1.0f, rest, part.n);
    if (!whole) std::copy_n(row, part.n, y + i * w.n + panels.begin * kPanelColumns);
  }
}

}  // namespace exp3rt
