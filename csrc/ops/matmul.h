#pragma once

#include <cstddef>

#include "core/types.h"
#include "ops/packed_matrix.h"

namespace exp3rt {

inline constexpr int kMaxProductRows = 640;

// Whether x lies in tiles for products with such a matrix (ops/tiles.h): in bf16 and int8 where there is AMX. Row by row
// elsewhere.
bool takes_tiles(DataType dtype);

// Products exist for these row counts; others run as the next larger one.
int padded_row_count(DataType dtype, int rows);

// How far apart the rows of a result of so many columns best lie. Rows of tiles that a power of two parts fall into few sets
// of the caches; oneDNN wants them side by side.
std::int64_t result_stride(DataType dtype, std::int64_t columns);

// What x of so many rows of k takes in memory, with the rows that it is padded with.
std::size_t operand_bytes(DataType dtype, int rows, std::int64_t k);
// Puts elements [first, first + count) of a row where they belong in x. first and the end are multiples of 64, or the end
// is k.
void place_row(DataType dtype, const void* from, int row, std::int64_t first, std::int64_t count, std::int64_t k,
               void* x);
// The same from fp32, rounded to `dtype` on the way, which is not int8.
void round_row(DataType dtype, const float* from, int row, std::int64_t first, std::int64_t count, std::int64_t k,
               void* x);

// y[rows, b.n] = x[rows, k] B, up to kMaxProductRows rows. x and B of one type and y fp32; in int8 x is unsigned and y
// int32, exact. x is readable, and y, whose rows lie `stride` numbers apart, writable up to padded_row_count rows; what the
// rows of y beyond hold is lost.
//
// One thread runs one call: callers divide the rows, or B's panels, among threads. A number has the same bits whatever rows
// and columns are computed beside it (tests/cpp/matmul_test.cc), which is what makes batched equal alone. The kernels for
// tiles are ours (ops/tile_product.cc); the others are oneDNN's, made for a single thread and a handful of row counts.
void matmul(const void* x, const PackedMatrix& b, void* y, std::int64_t stride, int rows);

}  // namespace exp3rt
