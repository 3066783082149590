#pragma once

#include <memory>

#include "core/types.h"
#include "ops/packed_matrix.h"

namespace exp3rt {

// y[rows, n] = x[rows, k] B, with B packed. x and B in `dtype` and y fp32; in int8 x is unsigned and y int32, exact.
//
// One thread runs one call: callers divide the rows among threads. The kernels are oneDNN's, made for a single thread
// and a handful of row counts; they were seen to give a row the same bits whatever rows stand beside it and however
// many (tests/cpp/matmul_test.cc), which is what makes batched equal alone.
class MatMul {
 public:
  static constexpr int kMaxRows = 256;  // per call

  MatMul(DataType dtype, std::int64_t k, std::int64_t n);
  ~MatMul();
  MatMul(MatMul&&) noexcept;

  // x and y are dense, and readable and writable up to padded_row_count(rows) rows; what the rows beyond hold is lost.
  void operator()(const void* x, const PackedMatrix& b, void* y, int rows) const;

  // Kernels exist for these row counts; others run as the next larger one.
  static int padded_row_count(int rows);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace exp3rt
