#pragma once

#include <cstddef>

#include "ops/matmul.h"
#include "ops/parallel.h"

namespace exp3rt {

// Rows of fp32 activations on their way into products, in the type that the products take. A view: threads that work on
// the same rows each have one of the same memory.
//
// For int8 a row is turned by H (ops/packed_matrix.h) and has a scale of its own.
// Precise rows go as two numbers each, their value and what its rounding lost, in twice the rows: a product's result is
// then as if the activations had twice the bits. In fp32 nothing is lost, and nothing is doubled.
class Activations {
 public:
  // memory: num_bytes() of the same arguments, on a cache-line boundary.
  Activations(DataType dtype, int num_rows, std::int64_t width, bool precise, std::byte* memory);
  static std::size_t num_bytes(DataType dtype, int num_rows, std::int64_t width, bool precise);

  void set(int row, const float* values);

  // What the products read, [product_rows, width] and a kernel's padding beyond.
  const std::byte* data() const { return data_; }
  int num_rows() const { return num_rows_; }
  int product_rows() const { return precise_ ? 2 * num_rows_ : num_rows_; }
  bool precise() const { return precise_; }
  float scale(int row) const { return scales_[row]; }  // int8

 private:
  // Into `value`, and what that lost into `rest` (null: not kept)
  void quantize(int index, const float* values, std::byte* value, std::byte* rest);
  std::byte* row(int index) { return data_ + static_cast<std::size_t>(index * width_) * size_of(dtype_); }

  DataType dtype_;
  int num_rows_;
  std::int64_t width_;
  bool precise_;
  float* scales_;  // [num_rows]
  std::byte* data_;
};

// Panels [panels.begin, panels.end) of y = x W, y[x.num_rows(), w.n]. There must be room for
// padded_row_count(x.product_rows()) rows: those beyond are lost. Threads may compute different panels at once.
void multiply(const PackedMatrix& w, const Activations& x, Range panels, float* y);

}  // namespace exp3rt
