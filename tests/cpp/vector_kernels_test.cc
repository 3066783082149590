#include "ops/vector_kernels.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/types.h"
#include "ops/isa.h"
#include "ops/tiles.h"

namespace exp3rt {

extern const VectorKernels vector_kernels_avx2;
extern const VectorKernels vector_kernels_avx512;
extern const VectorKernels vector_kernels_avx512_bf16;

namespace {

std::vector<const VectorKernels*> tables() {
  std::vector<const VectorKernels*> out = {&vector_kernels_avx2};
  if (cpu_isa() >= Isa::kAvx512) out.push_back(&vector_kernels_avx512);
  if (cpu_isa() >= Isa::kAvx512Bf16) out.push_back(&vector_kernels_avx512_bf16);
  return out;
}

std::vector<float> random_vector(unsigned seed, std::size_t size, float spread = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> x(size);
  for (float& value : x) value = normal(random);
  return x;
}

double approx(float x) { return static_cast<double>(x); }

}  // namespace

TEST_CASE(
    "vector kernels: numbers are rounded to where products and attention want them, and nothing beside is touched") {
  constexpr bfloat16 kUntouched = 0x1234;
  for (const VectorKernels* kernels : tables()) {
    for (const std::size_t n : {1u, 16u, 24u, 64u, 100u}) {
      const auto x = random_vector(6, n);
      std::vector<bfloat16> other(2 * n + 64, kUntouched);
      kernels->to_every_other(x.data(), static_cast<std::int64_t>(n), other.data() + 1);
      for (std::size_t i = 0; i < other.size(); ++i) {
        const bool written = i % 2 == 1 && i / 2 < n;
        CHECK(other[i] == (written ? to_bfloat16(x[i / 2]) : kUntouched));
      }
      constexpr std::size_t kTile = kTileBytes / sizeof(bfloat16), kRow = kTileDepth / sizeof(bfloat16);
      std::vector<bfloat16> tiles((n + kRow - 1) / kRow * kTile, kUntouched);
      kernels->to_tiles(x.data(), static_cast<std::int64_t>(n), tiles.data());
      for (std::size_t i = 0; i < tiles.size(); ++i) {
        const std::size_t at = i / kTile * kRow + i % kTile;
        const bool written = i % kTile < kRow;
        CHECK(tiles[i] == (!written ? kUntouched : at < n ? to_bfloat16(x[at]) : bfloat16{}));
      }
    }
  }
}

TEST_CASE("vector kernels: norm, rotation, swiglu, scaling and conversion equal their formulas") {
  for (const VectorKernels* kernels : tables()) {
    for (const std::size_t n : {1u, 7u, 64u, 576u}) {
      const auto size = static_cast<std::int64_t>(n);
      const auto x = random_vector(1, n), w = random_vector(2, n);
      double squares = 0, products = 0;
      for (std::size_t i = 0; i < n; ++i)
        squares += approx(x[i]) * approx(x[i]), products += approx(x[i]) * approx(w[i]);
      CHECK(approx(kernels->dot(x.data(), w.data(), size)) == doctest::Approx(products).epsilon(1e-5).scale(10));
      std::vector<float> normed(n), gate = random_vector(3, n, 20), sum = x, widened(n);
      kernels->rms_norm(x.data(), w.data(), 1e-5f, size, normed.data());
      const auto before = gate;
      kernels->swiglu(gate.data(), w.data(), size);
      kernels->scale_add(sum.data(), 0.5f, w.data(), size);
      std::vector<bfloat16> narrow(n);
      kernels->to_bfloat16(x.data(), size, narrow.data());
      kernels->to_float(narrow.data(), size, widened.data());
      std::vector<bfloat16> value(n), rest(n);
      kernels->split_bfloat16(x.data(), size, value.data(), rest.data());
      for (std::size_t i = 0; i < n; ++i) {
        CHECK(value[i] == narrow[i]);
        CHECK(to_float(value[i]) + to_float(rest[i]) == doctest::Approx(x[i]).epsilon(1e-5));
        const double norm = approx(x[i]) / std::sqrt(squares / static_cast<double>(n) + 1e-5) * approx(w[i]);
        CHECK(approx(normed[i]) == doctest::Approx(norm).epsilon(1e-5).scale(1));
        const double silu = approx(before[i]) / (1 + std::exp(-approx(before[i]))) * approx(w[i]);
        CHECK(approx(gate[i]) == doctest::Approx(silu).epsilon(1e-6).scale(1));
        CHECK(sum[i] == doctest::Approx(x[i] * 0.5f + w[i]));
        CHECK(narrow[i] == to_bfloat16(x[i]));
        CHECK(widened[i] == to_float(narrow[i]));
      }
    }
    auto head = random_vector(4, 32);
    const auto before = head, angles = random_vector(5, 16, 3);
    std::vector<float> cosine, sine;
    for (const float angle : angles) cosine.push_back(std::cos(angle)), sine.push_back(std::sin(angle));
    kernels->rotate(head.data(), cosine.data(), sine.data(), 16);
    for (std::size_t i = 0; i < 16; ++i) {
      CHECK(head[i] == doctest::Approx(before[i] * cosine[i] - before[i + 16] * sine[i]));
      CHECK(head[i + 16] == doctest::Approx(before[i + 16] * cosine[i] + before[i] * sine[i]));
    }
  }
}

TEST_CASE("vector kernels: a NaN stays one through conversion") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const VectorKernels* kernels : tables()) {
    bfloat16 narrow = 0;
    kernels->to_bfloat16(&nan, 1, &narrow);
    CHECK(std::isnan(to_float(narrow)));
  }
}

}  // namespace exp3rt
