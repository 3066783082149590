#pragma once

#include <cstddef>

#include "ops/matmul.h"
#include "ops/parallel.h"

namespace exp3rt {

// Rows of fp32 activations on their way into products, in the type and the layout that the products take. A view: threads
// that work on the same rows each have one of the same memory.
//
// For int8 a row is turned by H (ops/packed_matrix.h) and has a scale of its own.
// The first rows may be precise: each goes as two rows of the product, its value and what its rounding lost, and the result
// is as if the activation had twice the bits. In fp32 nothing is lost, and nothing is doubled.
// Rows of the product: values of the precise rows, what these lost, the other rows.
class Activations {
 public:
  // memory: num_bytes() of the same arguments, on a cache-line boundary. num_rows + num_precise: up to kMaxProductRows.
  Activations(DataType dtype, int num_rows, int num_precise, std::int64_t width, std::byte* memory);
  static std::size_t num_bytes(DataType dtype, int num_rows, int num_precise, std::int64_t width);

  void set(std::int64_t row, const float* values) { set_columns(row, 0, width_, values); }
  // Columns [first, first + count) of a row; first and the end are multiples of 64, or the end is the width. In int8 a row
  // can only be set as a whole, because its scale is that of its largest number.
  void set_columns(std::int64_t row, std::int64_t first, std::int64_t count, const float* values);

  // The same of silu(gate) * up. gate may be overwritten.
  void set_swiglu(std::int64_t row, std::int64_t first, std::int64_t count, float* gate, const float* up);

  int product_rows() const { return num_rows_ + num_precise_; }
  // Of a product's columns, how many are best computed before they are used up.
  std::int64_t columns_at_once() const;
  // Row of a product that is the result of this row.
  std::int64_t product_row(std::int64_t row) const { return row < num_precise_ ? row : row + num_precise_; }

 private:
  friend void multiply(const PackedMatrix& w, const Activations& x, Range panels, float* y, std::int64_t stride);
  void quantize(std::int64_t row, const float* values, std::byte* value, std::byte* rest);
  void place(std::int64_t product_row, std::int64_t first, std::int64_t count, const std::byte* from) {
    place_row(dtype_, from, static_cast<int>(product_row), first, count, width_, data_);
  }
  void dequantize(const PackedMatrix& part, float* y, std::int64_t stride) const;

  DataType dtype_;
  int num_rows_;
  int num_precise_;
  std::int64_t width_;
  float* scales_;  // [num_rows], int8
  std::byte* data_;
};

// Panels of y = x W, whose rows lie `stride` numbers apart; y points to the first of these columns. There must be room for
// padded_row_count of x.product_rows(). Threads may compute different panels at once.
void multiply(const PackedMatrix& w, const Activations& x, Range panels, float* y, std::int64_t stride);

}  // namespace exp3rt
