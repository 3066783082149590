#pragma once

#include <cstddef>
#include <vector>

#include "core/types.h"

namespace exp3rt {

// A matrix B[k, n] in the layout that the products want: panels of 64 columns, [ceil(n/64)][padded k][64], padded with
// zeros. In bf16, two rows of k lie interleaved, [padded k / 2][64][2], as the dot-product instructions read them.
// (oneDNN calls these BA16a64b and BA16a64b2a.) A weight W[n, k] of y = x Wᵀ is packed as B = Wᵀ.
inline constexpr std::int64_t kPanelColumns = 64;

constexpr std::int64_t padded_rows(DataType dtype, std::int64_t k) {
  return round_up(k, dtype == DataType::kFloat32 ? 16 : 32);
}

// Elements of one panel.
constexpr std::int64_t panel_size(DataType dtype, std::int64_t k) { return padded_rows(dtype, k) * kPanelColumns; }

// Where element (k, n) lies, n within its panel.
constexpr std::int64_t offset_in_panel(DataType dtype, std::int64_t k, std::int64_t n) {
  return dtype == DataType::kFloat32 ? k * kPanelColumns + n : (k / 2 * kPanelColumns + n) * 2 + k % 2;
}

// A view; the memory belongs to the weights.
struct PackedMatrix {
  const void* data = nullptr;
  std::int64_t n = 0;
  std::int64_t k = 0;
  DataType dtype = DataType::kFloat32;

  std::int64_t num_panels() const { return ceil_div(n, kPanelColumns); }
  std::int64_t num_elements() const { return num_panels() * panel_size(dtype, k); }
  std::size_t num_bytes() const { return static_cast<std::size_t>(num_elements()) * size_of(dtype); }
  // Columns [64 * panel, ...), the last of which may be fewer than 64.
  PackedMatrix panels(std::int64_t first, std::int64_t count) const;
  // Column `index` as fp32: out[k]. For a weight W[n, k] this is its row.
  void copy_column(std::int64_t index, float* out) const;
};

// w[n, k] row-major -> packed; out holds num_elements of `dtype`.
void pack(const float* w, std::int64_t n, std::int64_t k, DataType dtype, void* out);

// The same matrix as packed fp32, for machines that do not multiply bf16.
std::vector<float> widen(const PackedMatrix& matrix);

}  // namespace exp3rt
