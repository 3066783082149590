#include "ops/linear.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "operand.h"
#include "ops/vector_kernels.h"

namespace exp3rt {
namespace {

std::size_t z(std::int64_t n) { return static_cast<std::size_t>(n); }

// W[n, k] in int8, with what belongs to it.
struct QuantizedOperand {
  explicit QuantizedOperand(const RandomMatrix& w)
      : matrix{.n = w.rows, .k = w.columns, .dtype = DataType::kInt8}, scales(z(w.rows)), offsets(z(w.rows)) {
    auto* memory = buffer.get<std::int8_t>(matrix.num_bytes());
    std::vector<float> sums(z(w.rows));
    pack_int8(w.values.data(), w.rows, w.columns, memory, scales.data(), sums.data());
    for (std::size_t i = 0; i < sums.size(); ++i) offsets[i] = 128 * static_cast<std::int32_t>(sums[i]);
    matrix.data = memory;
    matrix.scale = scales.data();
    matrix.offset = offsets.data();
  }
  AlignedBuffer buffer;
  PackedMatrix matrix;
  std::vector<float> scales;
  std::vector<std::int32_t> offsets;
};

// x W, [count, w.n]
std::vector<float> results(const PackedMatrix& w, const Activations& x, int count) {
  std::vector<float> y(z(count * w.n)), rows(z(padded_row_count(w.dtype, x.product_rows()) * w.n));
  multiply(w, x, {0, w.num_panels()}, rows.data(), w.n);
  for (int i = 0; i < count; ++i) std::copy_n(&rows[z(x.product_row(i) * w.n)], w.n, &y[z(i * w.n)]);
  return y;
}

// Rows [first, first + count) of x meet W, of which the first num_precise are precise.
std::vector<float> run(const PackedMatrix& w, const RandomMatrix& x, int first, int count, int num_precise) {
  AlignedBuffer buffer;
  Activations input(w.dtype, count, num_precise, w.k,
                    buffer.get<std::byte>(Activations::num_bytes(w.dtype, count, num_precise, w.k)));
  for (int i = 0; i < count; ++i) input.set(i, &x.values[z((first + i) * w.k)]);
  return results(w, input, count);
}

// Root of the mean square of (y - x W), as a share of that of x W.
double relative_error(const std::vector<float>& y, const RandomMatrix& x, const RandomMatrix& w) {
  double error = 0, size = 0;
  for (int row = 0; row < x.rows; ++row) {
    for (int column = 0; column < w.rows; ++column) {
      double sum = 0;
      for (int i = 0; i < x.columns; ++i)
        sum += static_cast<double>(x.at(row, i)) * static_cast<double>(w.at(column, i));
      const double difference = static_cast<double>(y[z(row * w.rows + column)]) - sum;
      error += difference * difference;
      size += sum * sum;
    }
  }
  return std::sqrt(error / size);
}

bool multiplies_int8() { return compute_type(DataType::kInt8) == DataType::kInt8; }

}  // namespace

TEST_CASE("linear: int8 is near the product, precise rows are nearer, and a large channel does no harm") {
  if (!multiplies_int8()) return;
  for (const auto& [k, n] : {std::pair{576, 100}, {1536, 64}, {48, 130}, {25, 20}}) {
    RandomMatrix x(1, 20, k, DataType::kFloat32), w(2, n, k, DataType::kFloat32);
    const bool turned = hadamard_block(k) > 0;
    for (int row = 0; row < x.rows && turned; ++row) x.values[z(row * k + 3)] *= 50.0f;
    const QuantizedOperand q(w);
    CHECK(relative_error(run(q.matrix, x, 0, 20, 0), x, w) < (turned ? 0.02 : 0.03));
    // What is left is the weights' own rounding.
    RandomMatrix rounded(2, n, k, DataType::kFloat32);
    for (int i = 0; i < n; ++i) q.matrix.copy_column(i, &rounded.values[z(i * k)]);
    CHECK(relative_error(run(q.matrix, x, 0, 20, 20), x, rounded) < 2e-4);
  }
}

TEST_CASE("linear: a row has the same bits among any number of rows") {
  for (const DataType dtype : {DataType::kFloat32, DataType::kBFloat16, DataType::kInt8}) {
    if (compute_type(dtype) != dtype) continue;
    const RandomMatrix x(3, 400, 96, DataType::kFloat32), w(4, 70, 96, DataType::kFloat32);
    const QuantizedOperand int8(w);
    const PackedOperand other(RandomMatrix(4, 70, 96, dtype == DataType::kInt8 ? DataType::kFloat32 : dtype));
    const PackedMatrix& matrix = dtype == DataType::kInt8 ? int8.matrix : other.matrix;
    const std::vector<float> precise = run(matrix, x, 0, 100, 100), plain = run(matrix, x, 0, 400, 0);
    for (const auto& [count, num_precise] :
         {std::pair{1, 0}, {1, 1}, {17, 5}, {100, 64}, {255, 2}, {300, 90}, {128, 128}}) {
      const int first = std::min(100 - std::min(num_precise, 100), 400 - count);
      const std::vector<float> some = run(matrix, x, first, count, num_precise);
      for (int i = 0; i < count; ++i) {
        const std::vector<float>& all = i < num_precise ? precise : plain;
        if (i < num_precise && first + i >= 100) continue;
        CHECK(std::memcmp(&some[z(i * 70)], &all[z((first + i) * 70)], 70 * sizeof(float)) == 0);
      }
    }
  }
}

TEST_CASE("linear: rows that are set part by part are the same rows") {
  for (const DataType dtype : product_types()) {
    const RandomMatrix x(5, 20, 150, DataType::kFloat32);
    const PackedOperand b(RandomMatrix(6, 70, 150, dtype));
    AlignedBuffer buffer;
    Activations input(dtype, 20, 7, 150, buffer.get<std::byte>(Activations::num_bytes(dtype, 20, 7, 150)));
    for (int row = 0; row < 20; ++row) {
      input.set_columns(row, 64, 86, &x.values[z(row * 150 + 64)]);
      input.set_columns(row, 0, 64, &x.values[z(row * 150)]);
    }
    CHECK(results(b.matrix, input, 20) == run(b.matrix, x, 0, 20, 7));
  }
  if (!multiplies_int8()) return;
  AlignedBuffer buffer;
  Activations whole(DataType::kInt8, 1, 0, 128,
                    buffer.get<std::byte>(Activations::num_bytes(DataType::kInt8, 1, 0, 128)));
  CHECK_THROWS_AS(whole.set_columns(0, 0, 64, std::vector<float>(64).data()), std::logic_error);
}

TEST_CASE("linear: a NaN among the activations is in every number that they make") {
  if (!multiplies_int8()) return;
  RandomMatrix x(5, 2, 64, DataType::kFloat32);
  const RandomMatrix w(6, 64, 64, DataType::kFloat32);
  x.values[7] = std::numeric_limits<float>::quiet_NaN();
  const QuantizedOperand q(w);
  const std::vector<float> y = run(q.matrix, x, 0, 2, 0);
  for (std::size_t i = 0; i < 64; ++i) {
    CHECK(std::isnan(y[i]));
    CHECK(std::isfinite(y[64 + i]));
  }
}

TEST_CASE("linear: int8 widened to fp32 is the matrix that was packed") {
  const RandomMatrix w(7, 70, 96, DataType::kFloat32);
  const QuantizedOperand q(w);
  const std::vector<float> wide = widen(q.matrix);
  const PackedMatrix matrix{.data = wide.data(), .n = 70, .k = 96};
  std::vector<float> column(96);
  for (int i = 0; i < 70; ++i) {
    matrix.copy_column(i, column.data());
    for (int j = 0; j < 96; ++j) CHECK(column[z(j)] == doctest::Approx(w.at(i, j)).epsilon(0.02).scale(2));
  }
}

TEST_CASE("hadamard: applied twice it gives back each whole block, and the rest is left alone") {
  const RandomMatrix x(8, 1, 600, DataType::kFloat32);
  for (const int block : {16, 64, 512}) {
    std::vector<float> twice = x.values;
    vector_kernels().hadamard(twice.data(), 600, block);
    CHECK(twice[0] != x.values[0]);
    vector_kernels().hadamard(twice.data(), 600, block);
    for (int i = 0; i < 600; ++i) {
      const float factor = i < 600 / block * block ? static_cast<float>(block) : 1.0f;
      CHECK(twice[z(i)] == doctest::Approx(factor * x.values[z(i)]).epsilon(1e-4).scale(block));
    }
  }
  CHECK(hadamard_block(576) == 64);
  CHECK(hadamard_block(1536) == 512);
  CHECK(hadamard_block(25) == 0);
}

}  // namespace exp3rt
