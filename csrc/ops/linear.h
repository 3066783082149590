#pragma once

#include <vector>

#include "ops/aligned_buffer.h"
#include "ops/matmul.h"

namespace exp3rt {

// Rows of fp32 activations on their way into products, in the type that the products take.
//
// For int8 a row is turned by H (ops/packed_matrix.h) and has a scale of its own.
// Precise rows go as two numbers each, their value and what its rounding lost, in twice the rows: a product's result is
// then as if the activations had twice the bits. In fp32 nothing is lost, and nothing is doubled.
class Activations {
 public:
  // Room for rows of `width`; what was held before is lost.
  void start(DataType dtype, int num_rows, std::int64_t width, bool precise);
  void set(int row, const float* values);

  // What the products read, [product_rows, width] and a kernel's padding beyond.
  const std::byte* data() const { return data_; }
  int num_rows() const { return num_rows_; }
  int product_rows() const { return precise_ ? 2 * num_rows_ : num_rows_; }
  bool precise() const { return precise_; }
  float scale(int row) const { return scales_[static_cast<std::size_t>(row)]; }  // int8

 private:
  // Into `value`, and what that lost into `rest` (null: not kept)
  void quantize(int index, const float* values, std::byte* value, std::byte* rest);
  std::byte* row(int index) { return data_ + static_cast<std::size_t>(index * width_) * size_of(dtype_); }

  DataType dtype_ = DataType::kFloat32;
  int num_rows_ = 0;
  std::int64_t width_ = 0;
  bool precise_ = false;
  std::byte* data_ = nullptr;
  std::vector<float> scales_;
  AlignedBuffer buffer_, turned_buffer_;
};

// y[x.num_rows(), w.n] = x W. There must be room for padded_row_count(x.product_rows()) rows: those beyond are lost.
void multiply(const MatMul& product, const PackedMatrix& w, const Activations& x, float* y);

}  // namespace exp3rt
