// Compiled once for each instruction set (CMakeLists.txt), with EXP3RT_KERNELS naming it. Plain loops that the compiler
// vectorizes. Every function is local to this file: one shared with others could be linked into code that runs where
// this instruction set is missing.
#include "ops/vector_kernels.h"

#include <bit>
#include <cmath>
#include <limits>

#include "core/types.h"

#define EXP3RT_JOIN2(a, b) a##b
#define EXP3RT_JOIN(a, b) EXP3RT_JOIN2(a, b)

namespace exp3rt {
namespace {

// exp by 2^n * p(r), |r| <= ln(2)/2, p the degree-6 Taylor polynomial: relative error below 2e-7. 0 below
// -87; NaN stays.
inline float exp_approx(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer held in the low bits
  const float clamped = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  const float shifted = clamped * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const float power = std::bit_cast<float>((std::bit_cast<std::uint32_t>(shifted) << 23) + 0x3F800000u);
  return x < -87.0f ? 0.0f : p * power;
}

float dot(const float* x, const float* y, std::int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

void rms_norm(const float* x, const float* weight, float epsilon, std::int64_t n, float* out) {
  const float factor = 1.0f / std::sqrt(dot(x, x, n) / static_cast<float>(n) + epsilon);
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = x[i] * factor * weight[i];
}

void rotate(float* x, const float* cosine, const float* sine, std::int64_t half) {
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = x[i];
    const float b = x[i + half];
    x[i] = a * cosine[i] - b * sine[i];
    x[i + half] = b * cosine[i] + a * sine[i];
  }
}

void swiglu(float* gate, const float* up, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + exp_approx(-gate[i])) * up[i];
}

void scale_add(float* x, float factor, const float* y, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) x[i] = x[i] * factor + y[i];
}

void scale(float* x, float factor, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) x[i] *= factor;
}

inline bfloat16 rounded(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t nearest = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t quiet_nan = (bits >> 16) | 0x40u;
  return static_cast<bfloat16>((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet_nan : nearest);
}

inline float widened(bfloat16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x) << 16); }

void round_to_bfloat16(const float* x, std::int64_t n, bfloat16* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = rounded(x[i]);
}

void split_bfloat16(const float* x, std::int64_t n, bfloat16* value, bfloat16* rest) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    value[i] = rounded(x[i]);
    rest[i] = rounded(x[i] - widened(value[i]));
  }
}

void widen(const bfloat16* x, std::int64_t n, float* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = widened(x[i]);
}

float softmax_block(float* scores, int valid, float* max, float* sum) {
  for (int i = valid; i < kBlockTokens; ++i) scores[i] = -std::numeric_limits<float>::infinity();
  float block_max = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : block_max)
  for (int i = 0; i < kBlockTokens; ++i) block_max = scores[i] > block_max ? scores[i] : block_max;
  const float new_max = *max > block_max ? *max : block_max;
  float block_sum = 0;
#pragma omp simd reduction(+ : block_sum)
  for (int i = 0; i < kBlockTokens; ++i) {
    scores[i] = exp_approx(scores[i] - new_max);
    block_sum += scores[i];
  }
  const float factor = exp_approx(*max - new_max);
  *sum = *sum * factor + block_sum;
  *max = new_max;
  return factor;
}

}  // namespace

// Named by its instruction set; vector_dispatch.cc chooses.
extern const VectorKernels EXP3RT_JOIN(vector_kernels_, EXP3RT_KERNELS);
const VectorKernels EXP3RT_JOIN(vector_kernels_, EXP3RT_KERNELS) = {
    rms_norm, rotate, swiglu, scale_add, scale, dot, round_to_bfloat16, split_bfloat16, widen, softmax_block,
};

}  // namespace exp3rt
