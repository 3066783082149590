#include "ops/linear.h"

#include <algorithm>
#include <stdexcept>

#include "ops/aligned_buffer.h"
#include "ops/store.h"
#include "ops/tiles.h"
#include "ops/vector_kernels.h"

namespace exp3rt {
namespace {

// Numbers of a result. They stay in the L2 cache until they are used up; but where tiles take a depth in parts, a part of the
// rows, which stays there too, is to meet many columns.
constexpr std::int64_t kFewNumbers = 32 * 1024, kManyNumbers = 320 * 1024;
constexpr float kRestScale = 1.0f / 254;  // of a quantized rest: half a step of the value is 127 of its steps

std::uint8_t* bytes(std::byte* data) { return reinterpret_cast<std::uint8_t*>(data); }

int doubled(DataType dtype, int num_precise) { return dtype == DataType::kFloat32 ? 0 : num_precise; }

std::size_t scale_bytes(int num_rows) {
  return static_cast<std::size_t>(round_up(num_rows, 16)) * sizeof(float);  // whole cache lines
}

}  // namespace

Activations::Activations(DataType dtype, int num_rows, int num_precise, std::int64_t width, std::byte* memory)
    : dtype_(dtype),
      num_rows_(num_rows),
      num_precise_(doubled(dtype, num_precise)),
      width_(width),
      scales_(reinterpret_cast<float*>(memory)),
      data_(memory + scale_bytes(num_rows)) {}

std::size_t Activations::num_bytes(DataType dtype, int num_rows, int num_precise, std::int64_t width) {
  return scale_bytes(num_rows) + operand_bytes(dtype, num_rows + doubled(dtype, num_precise), width);
}

std::int64_t Activations::columns_at_once() const {
  const bool in_parts =
      takes_tiles(dtype_) && tile_steps(static_cast<std::size_t>(width_) * size_of(dtype_)) > kNearTileSteps;
  return (in_parts ? kManyNumbers : kFewNumbers) / std::max(1, product_rows());
}

void Activations::set_columns(std::int64_t row, std::int64_t first, std::int64_t count, const float* values) {
  thread_local AlignedBuffer buffer;  // the columns as they are stored, and what that lost
  const bool precise = row < num_precise_;
  if (!precise && dtype_ != DataType::kInt8) {
    return round_row(dtype_, values, static_cast<int>(product_row(row)), first, count, width_, data_);
  }
  const std::size_t size = static_cast<std::size_t>(round_up(count, 64)) * size_of(dtype_);
  auto* value = buffer.get<std::byte>(2 * size);
  std::byte* rest = precise ? value + size : nullptr;
  if (dtype_ == DataType::kInt8) {
    if (count != width_) throw std::logic_error("int8 activations are set a whole row at a time");
    quantize(row, values, value, rest);
  } else {
    store_split(values, count, value, rest);
  }
  place(product_row(row), first, count, value);
  if (precise) place(num_precise_ + row, first, count, rest);
}

void Activations::set_swiglu(std::int64_t row, std::int64_t first, std::int64_t count, float* gate, const float* up) {
  if (row >= num_precise_ && dtype_ == DataType::kBFloat16 && takes_tiles(dtype_)) {
    const std::size_t element = sizeof(bfloat16), steps = tile_steps(static_cast<std::size_t>(width_) * element);
    const std::size_t at =
        offset_in_tiles(static_cast<int>(product_row(row)), static_cast<std::size_t>(first) * element, steps);
    return vector_kernels().swiglu_to_tiles(gate, up, count, reinterpret_cast<bfloat16*>(data_ + at));
  }
  vector_kernels().swiglu(gate, up, count);
  set_columns(row, first, count, gate);
}

// Into `value`, and what that lost into `rest` (null: not kept)
void Activations::quantize(std::int64_t row, const float* values, std::byte* value, std::byte* rest) {
  thread_local AlignedBuffer buffer;
  const VectorKernels& kernels = vector_kernels();
  float* turned = buffer.get<float>(static_cast<std::size_t>(width_));
  std::copy_n(values, width_, turned);
  const std::int64_t block = hadamard_block(width_);
  if (block > 0) kernels.hadamard(turned, width_, block);
  scales_[row] = rest ? kernels.quantize_split(turned, width_, bytes(value), bytes(rest))
                      : kernels.quantize(turned, width_, bytes(value));
}

// The sums become what they stand for.
void Activations::dequantize(const PackedMatrix& part, float* y, std::int64_t stride) const {
  for (std::int64_t at = 0; at < product_rows(); ++at, y += stride) {
    const bool rest = at >= num_precise_ && at < 2 * num_precise_;
    const float scale = at < num_precise_ ? scales_[at] : scales_[at - num_precise_];
    vector_kernels().dequantize(y, part.offset, part.scale, rest ? scale * kRestScale : scale, part.n, y);
  }
}

void multiply(const PackedMatrix& w, const Activations& x, Range panels, float* y, std::int64_t stride) {
  if (panels.empty()) return;
  const PackedMatrix part = w.panels(panels.begin, panels.size());
  matmul(x.data_, part, y, stride, x.product_rows());
  if (w.dtype == DataType::kInt8) x.dequantize(part, y, stride);
  for (int i = 0; i < x.num_precise_; ++i) {
    vector_kernels().scale_add(y + i * stride, 1.0f, y + (x.num_precise_ + i) * stride, part.n);
  }
}

}  // namespace exp3rt
