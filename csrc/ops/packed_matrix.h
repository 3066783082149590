#pragma once

#include <cstddef>
#include <vector>

#include "core/types.h"

namespace exp3rt {

// A matrix B[k, n] in the layout that the products want: panels of 64 columns, [ceil(n/64)][padded k][64], padded with
// zeros. In bf16 two rows of k lie interleaved, [padded k / 2][64][2], in int8 four, as the dot-product instructions
// read them. (oneDNN calls these BA16a64b, BA16a64b2a and BA16a64b4a.) A weight W[n, k] of y = x Wᵀ is packed as
// B = Wᵀ.
inline constexpr std::int64_t kPanelColumns = 64;

constexpr std::int64_t padded_rows(DataType dtype, std::int64_t k) {
  return round_up(k, static_cast<std::int64_t>(64 / size_of(dtype)));
}

// Elements of one panel.
constexpr std::int64_t panel_size(DataType dtype, std::int64_t k) { return padded_rows(dtype, k) * kPanelColumns; }

// Where element (k, n) lies, n within its panel.
constexpr std::int64_t offset_in_panel(DataType dtype, std::int64_t k, std::int64_t n) {
  const auto interleaved = static_cast<std::int64_t>(4 / size_of(dtype));
  return (k / interleaved * kPanelColumns + n) * interleaved + k % interleaved;
}

// A view; the memory belongs to the weights.
struct PackedMatrix {
  const void* data = nullptr;
  std::int64_t n = 0;
  std::int64_t k = 0;
  DataType dtype = DataType::kFloat32;
  // int8 only: column n of H B is scale[n] times its integers; offset[n] is 128 times their sum.
  const float* scale = nullptr;
  const std::int32_t* offset = nullptr;

  std::int64_t num_panels() const { return ceil_div(n, kPanelColumns); }
  std::int64_t num_elements() const { return num_panels() * panel_size(dtype, k); }
  std::size_t num_bytes() const { return static_cast<std::size_t>(num_elements()) * size_of(dtype); }
  // Columns [64 * panel, ...), the last of which may be fewer than 64.
  PackedMatrix panels(std::int64_t first, std::int64_t count) const;
  // Column `index` as fp32: out[k]. For a weight W[n, k] this is its row.
  void copy_column(std::int64_t index, float* out) const;
};

// w[n, k] row-major -> packed; out holds num_elements of `dtype`, which is not int8.
void pack(const float* w, std::int64_t n, std::int64_t k, DataType dtype, void* out);

// int8 matrices are kept as H B, and meet x H: the Walsh-Hadamard matrix H spreads a large channel of x, or of B, over a
// block, so that no channel forces coarse steps on all others (QuaRot, arXiv 2404.00456). x B = (x H) (H B) / block.
// 0: k has no such block, and nothing is transformed.
constexpr std::int64_t hadamard_block(std::int64_t k) {
  std::int64_t block = 512;
  while (block >= 16 && k % block != 0) block /= 2;
  return block >= 16 ? block : 0;
}

// w[n, k] row-major -> packed int8, symmetric, one scale a row of w, the one that loses least. sum[n]: of the integers,
// exact as long as k < 2^24 / 127.
void pack_int8(const float* w, std::int64_t n, std::int64_t k, std::int8_t* out, float* scale, float* sum);

// The same matrix as packed fp32, for machines that do not multiply its type.
std::vector<float> widen(const PackedMatrix& matrix);

}  // namespace exp3rt
