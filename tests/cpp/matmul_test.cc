#include "ops/matmul.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "operand.h"
#include "ops/parallel.h"

namespace exp3rt {
namespace {

struct Shape {
  int k, n;
};

std::vector<float> multiply(const MatMul& product, const RandomMatrix& x, int first, const PackedMatrix& b, int rows) {
  const auto columns = static_cast<std::size_t>(b.n);
  std::vector<float> y(static_cast<std::size_t>(MatMul::padded_row_count(rows)) * columns, -1.0f);
  product(x.row(first), b, y.data(), rows);
  y.resize(static_cast<std::size_t>(rows) * columns);
  return y;
}

}  // namespace

TEST_CASE("matmul: equals the sum of products") {
  for (const DataType dtype : product_types()) {
    for (const auto& [k, n] : {Shape{64, 64}, {16, 64}, {64, 16}, {48, 100}, {176, 128}, {576, 960}}) {
      const RandomMatrix x(1, 9, k, dtype), w(2, n, k, dtype);
      const PackedOperand b(w);
      const std::vector<float> y = multiply(MatMul(dtype, k, n), x, 0, b.matrix, 9);
      for (int row = 0; row < 9; ++row) {
        for (int column = 0; column < n; ++column) {
          double sum = 0;
          for (int i = 0; i < k; ++i) sum += static_cast<double>(x.at(row, i)) * static_cast<double>(w.at(column, i));
          CHECK(static_cast<double>(y[static_cast<std::size_t>(row * n + column)]) ==
                doctest::Approx(sum).epsilon(1e-4).scale(10));
        }
      }
    }
  }
}

// What makes batched equal alone.
TEST_CASE("matmul: a row has the same bits among any number of rows, at any place, on any thread") {
  for (const DataType dtype : product_types()) {
    for (const auto& [k, n] : {Shape{64, 64}, {48, 100}, {576, 960}, {1536, 576}}) {
      const RandomMatrix x(3, 256, k, dtype), w(4, n, k, dtype);
      const PackedOperand b(w);
      const MatMul product(dtype, k, n);
      const std::vector<float> all = multiply(product, x, 0, b.matrix, 256);
      parallel_for(2, 40, [&](std::int64_t i) {
        const int rows = static_cast<int>(1 + i * 6), first = static_cast<int>(i % (257 - rows));
        const std::vector<float> some = multiply(product, x, first, b.matrix, rows);
        const float* same = all.data() + static_cast<std::size_t>(first * n);
        if (std::memcmp(some.data(), same, some.size() * sizeof(float)) != 0)
          throw std::runtime_error("a row has other bits among " + std::to_string(rows));
      });
    }
  }
}

TEST_CASE("matmul: refuses what it was not made for") {
  const RandomMatrix x(1, 4, 32, DataType::kFloat32), w(2, 64, 32, DataType::kFloat32);
  const PackedOperand b(w);
  const MatMul product(DataType::kFloat32, 32, 128);
  std::vector<float> y(4 * 128);
  CHECK_THROWS_AS(product(x.row(0), b.matrix, y.data(), 4), std::invalid_argument);
  CHECK_THROWS_AS(MatMul::padded_row_count(257), std::invalid_argument);
  CHECK_THROWS_AS(MatMul::padded_row_count(0), std::invalid_argument);
}

TEST_CASE("parallel_for: covers every index once, and hands an exception to the caller") {
  std::vector<int> seen(1000, 0);
  parallel_for(3, 1000, [&](std::int64_t i) { ++seen[static_cast<std::size_t>(i)]; });
  CHECK(seen == std::vector<int>(1000, 1));
  CHECK_THROWS_WITH_AS(parallel_for(2, 10,
                                    [](std::int64_t i) {
                                      if (i == 7) throw std::runtime_error("seven");
                                    }),
                       "seven", std::runtime_error);
}

}  // namespace exp3rt
