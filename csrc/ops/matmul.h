#pragma once

#include "core/types.h"
#include "ops/packed_matrix.h"

namespace exp3rt {

inline constexpr int kMaxProductRows = 256;

// Kernels exist for these row counts; others run as the next larger one.
int padded_row_count(int rows);

// y[rows, b.n] = x[rows, k] B. x and B of one type and y fp32; in int8 x is unsigned and y int32, exact. x and y are
// dense, and readable and writable up to padded_row_count(rows) rows; what the rows of y beyond hold is lost.
//
// One thread runs one call: callers divide the rows, or B's panels, among threads. The kernels are oneDNN's, made for
// a single thread and a handful of row counts; they were seen to give a number the same bits whatever rows and columns
// are computed beside it (tests/cpp/matmul_test.cc), which is what makes batched equal alone.
void matmul(const void* x, const PackedMatrix& b, void* y, int rows);

}  // namespace exp3rt
