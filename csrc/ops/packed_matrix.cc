#include "ops/packed_matrix.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/bfloat16.h"
#include "ops/parallel.h"
#include "ops/vector_kernels.h"

namespace exp3rt {
namespace {

// Element `index` of the packed data, which lies in `column` of B.
float get(const PackedMatrix& matrix, std::int64_t index, std::int64_t column) {
  switch (matrix.dtype) {
    case DataType::kFloat32: return static_cast<const float*>(matrix.data)[index];
    case DataType::kBFloat16: return to_float(static_cast<const bfloat16*>(matrix.data)[index]);
    case DataType::kInt8: return static_cast<const std::int8_t*>(matrix.data)[index] * matrix.scale[column];
  }
  return 0;
}

// x = factor * x H
void transform(float* x, std::int64_t n, float factor) {
  const std::int64_t block = hadamard_block(n);
  if (block == 0) return;
  vector_kernels().hadamard(x, n, block);
  vector_kernels().scale(x, factor, n, x);
}

float quantized(float x, float scale) {
  const float steps = scale > 0 ? std::nearbyint(x / scale) : 0.0f;
  return std::clamp(steps, -127.0f, 127.0f);
}

// The step that loses least of a row, in squares: a few large values may be cut so that all others are finer.
float best_scale(const float* x, std::int64_t n) {
  constexpr int kTries = 20;
  float largest = 0;
  for (std::int64_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  float best = largest / 127.0f;
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kTries; ++i) {
    const float scale = largest / 127.0f * (1.0f - 0.025f * static_cast<float>(i));
    double lost = 0;
    for (std::int64_t j = 0; j < n; ++j) {
      const float error = x[j] - quantized(x[j], scale) * scale;
      lost += static_cast<double>(error * error);
    }
    if (lost < least) {
      least = lost;
      best = scale;
    }
  }
  return best;
}

}  // namespace

PackedMatrix PackedMatrix::panels(std::int64_t first, std::int64_t count) const {
  PackedMatrix part = *this;
  const auto skip = static_cast<std::size_t>(first * panel_size(dtype, k)) * size_of(dtype);
  part.data = static_cast<const std::byte*>(data) + skip;
  part.n = std::min(count * kPanelColumns, n - first * kPanelColumns);
  if (dtype == DataType::kInt8) {
    part.scale += first * kPanelColumns;
    part.offset += first * kPanelColumns;
  }
  return part;
}

void PackedMatrix::copy_column(std::int64_t index, float* out) const {
  const PackedMatrix panel = panels(index / kPanelColumns, 1);
  const std::int64_t column = index % kPanelColumns;
  for (std::int64_t i = 0; i < k; ++i) out[i] = get(panel, offset_in_panel(dtype, i, column), column);
  if (dtype == DataType::kInt8) transform(out, k, 1.0f);
}

void pack(const float* w, std::int64_t n, std::int64_t k, DataType dtype, void* out) {
  const std::int64_t size = panel_size(dtype, k);
  const std::int64_t total = ceil_div(n, kPanelColumns) * size;
  std::fill_n(static_cast<std::byte*>(out), static_cast<std::size_t>(total) * size_of(dtype), std::byte{0});
  for (std::int64_t row = 0; row < n; ++row) {
    const std::int64_t base = row / kPanelColumns * size;
    for (std::int64_t i = 0; i < k; ++i) {
      const std::int64_t at = base + offset_in_panel(dtype, i, row % kPanelColumns);
      const float value = w[row * k + i];
      if (dtype == DataType::kFloat32) {
        static_cast<float*>(out)[at] = value;
      } else {
        static_cast<bfloat16*>(out)[at] = to_bfloat16(value);
      }
    }
  }
}

void pack_int8(const float* w, std::int64_t n, std::int64_t k, std::int8_t* out, float* scale, float* sum) {
  const std::int64_t size = panel_size(DataType::kInt8, k);
  std::fill_n(out, ceil_div(n, kPanelColumns) * size, std::int8_t{0});
  parallel_for(omp_get_max_threads(), n, [&](std::int64_t row) {
    std::vector<float> from(static_cast<std::size_t>(k));
    std::copy_n(w + row * k, k, from.data());
    transform(from.data(), k, 1.0f / static_cast<float>(std::max<std::int64_t>(1, hadamard_block(k))));
    scale[row] = best_scale(from.data(), k);
    std::int32_t total = 0;
    for (std::int64_t i = 0; i < k; ++i) {
      const auto value = static_cast<std::int32_t>(quantized(from[static_cast<std::size_t>(i)], scale[row]));
      total += value;
      out[row / kPanelColumns * size + offset_in_panel(DataType::kInt8, i, row % kPanelColumns)] =
          static_cast<std::int8_t>(value);
    }
    sum[row] = static_cast<float>(total);
  });
}

std::vector<float> widen(const PackedMatrix& matrix) {
  const PackedMatrix wide{.n = matrix.n, .k = matrix.k};
  std::vector<float> out(static_cast<std::size_t>(wide.num_elements()));
  std::vector<float> column(static_cast<std::size_t>(matrix.k));
  for (std::int64_t n = 0; n < matrix.n; ++n) {
    matrix.copy_column(n, column.data());
    float* panel = out.data() + n / kPanelColumns * panel_size(wide.dtype, wide.k);
    for (std::int64_t k = 0; k < matrix.k; ++k) {
      panel[offset_in_panel(wide.dtype, k, n % kPanelColumns)] = column[static_cast<std::size_t>(k)];
    }
  }
  return out;
}

}  // namespace exp3rt
