#include "ops/packed_matrix.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>

#include "ops/bfloat16.h"

namespace exp3rt {
namespace {

std::vector<float> random_matrix(std::int64_t size) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> w(static_cast<std::size_t>(size));
  for (float& value : w) value = normal(random);
  return w;
}

}  // namespace

TEST_CASE("bfloat16: rounds to nearest even, and NaN and infinity stay what they are") {
  CHECK(to_float(to_bfloat16(1.0f)) == 1.0f);
  CHECK(to_float(to_bfloat16(1.00390625f)) == 1.0f);       // half way: the even neighbour
  CHECK(to_float(to_bfloat16(1.01171875f)) == 1.015625f);  // half way: the even neighbour
  CHECK(std::isnan(to_float(to_bfloat16(std::numeric_limits<float>::quiet_NaN()))));
  CHECK(std::isnan(to_float(to_bfloat16(std::bit_cast<float>(0x7FFFFFFFu)))));
  CHECK(std::isinf(to_float(to_bfloat16(std::numeric_limits<float>::infinity()))));
  CHECK(to_float(to_bfloat16(-3.5e-20f)) == doctest::Approx(-3.5e-20f).epsilon(0.01));
}

TEST_CASE("packed matrix: every column comes back, and the padding is zero") {
  for (const DataType dtype : {DataType::kFloat32, DataType::kBFloat16}) {
    for (const auto& [n, k] : {std::pair{1, 1}, {64, 32}, {65, 33}, {130, 48}}) {
      const std::vector<float> w = random_matrix(n * k);
      PackedMatrix matrix{nullptr, n, k, dtype};
      std::vector<std::byte> memory(matrix.num_bytes(), std::byte{0xFF});
      pack(w.data(), n, k, dtype, memory.data());
      matrix.data = memory.data();
      std::vector<float> column(static_cast<std::size_t>(k));
      for (int i = 0; i < n; ++i) {
        matrix.copy_column(i, column.data());
        for (int j = 0; j < k; ++j) {
          const float value = w[static_cast<std::size_t>(i * k + j)];
          CHECK(column[static_cast<std::size_t>(j)] ==
                (dtype == DataType::kFloat32 ? value : to_float(to_bfloat16(value))));
        }
      }
      std::int64_t nonzero = 0;
      for (const float value : widen(matrix)) nonzero += value != 0;
      CHECK(nonzero == n * k);
    }
  }
}

TEST_CASE("packed matrix: widened bf16 holds the same numbers in the fp32 layout") {
  const int n = 70, k = 40;
  const std::vector<float> w = random_matrix(n * k);
  PackedMatrix narrow{nullptr, n, k, DataType::kBFloat16};
  std::vector<std::byte> memory(narrow.num_bytes());
  pack(w.data(), n, k, narrow.dtype, memory.data());
  narrow.data = memory.data();
  const std::vector<float> wide = widen(narrow);
  const PackedMatrix view{wide.data(), n, k, DataType::kFloat32};
  std::vector<float> a(40), b(40);
  for (int i = 0; i < n; ++i) {
    narrow.copy_column(i, a.data());
    view.copy_column(i, b.data());
    CHECK(a == b);
  }
}

}  // namespace exp3rt
