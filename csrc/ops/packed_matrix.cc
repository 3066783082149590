#include "ops/packed_matrix.h"

#include <algorithm>

#include "ops/bfloat16.h"

namespace exp3rt {
namespace {

float get(const PackedMatrix& matrix, std::int64_t index) {
  if (matrix.dtype == DataType::kFloat32) return static_cast<const float*>(matrix.data)[index];
  return to_float(static_cast<const bfloat16*>(matrix.data)[index]);
}

}  // namespace

PackedMatrix PackedMatrix::panels(std::int64_t first, std::int64_t count) const {
  PackedMatrix part = *this;
  const auto skip = static_cast<std::size_t>(first * panel_size(dtype, k)) * size_of(dtype);
  part.data = static_cast<const std::byte*>(data) + skip;
  part.n = std::min(count * kPanelColumns, n - first * kPanelColumns);
  return part;
}

void PackedMatrix::copy_column(std::int64_t index, float* out) const {
  const PackedMatrix panel = panels(index / kPanelColumns, 1);
  for (std::int64_t i = 0; i < k; ++i) out[i] = get(panel, offset_in_panel(dtype, i, index % kPanelColumns));
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

std::vector<float> widen(const PackedMatrix& matrix) {
  PackedMatrix wide{nullptr, matrix.n, matrix.k, DataType::kFloat32};
  std::vector<float> out(static_cast<std::size_t>(wide.num_elements()));
  const std::int64_t from = panel_size(matrix.dtype, matrix.k);
  const std::int64_t to = panel_size(wide.dtype, wide.k);
  for (std::int64_t p = 0; p < matrix.num_panels(); ++p) {
    for (std::int64_t row = 0; row < matrix.k; ++row) {
      for (std::int64_t column = 0; column < kPanelColumns; ++column) {
        out[static_cast<std::size_t>(p * to + row * kPanelColumns + column)] =
            get(matrix, p * from + offset_in_panel(matrix.dtype, row, column));
      }
    }
  }
  return out;
}

}  // namespace exp3rt
