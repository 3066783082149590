// The fp32 lanes of one register as one value: sixteen of AVX-512, eight of AVX2. (More than a register holds, GCC keeps in
// memory.) For sources that are compiled once for each instruction set: everything is local to the file that includes it,
// so that no two of them share a symbol.
#pragma once

#include <bit>
#include <cstdint>

#include "ops/bfloat16.h"

namespace exp3rt {
namespace {

#ifdef __AVX512F__
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif
using Floats = float [[gnu::vector_size(4 * kLanes)]];
using Ints = std::int32_t [[gnu::vector_size(4 * kLanes)]];
using Words = std::uint32_t [[gnu::vector_size(4 * kLanes)]];
using Narrow = std::uint16_t [[gnu::vector_size(2 * kLanes)]];
using Eight = float [[gnu::vector_size(32)]];
using Four = float [[gnu::vector_size(16)]];

#ifdef __AVX512F__
constexpr Ints kIndex = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
constexpr Ints kIndex = {0, 1, 2, 3, 4, 5, 6, 7};
#endif

inline Floats load(const float* from) {
  Floats v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

// The first `count` lanes; the others are 0.
inline Floats load_some(const float* from, std::int64_t count) {
  Floats v = {};
  __builtin_memcpy(&v, from, static_cast<std::size_t>(count) * sizeof(float));
  return v;
}

inline void store(Floats v, float* to) { __builtin_memcpy(to, &v, sizeof v); }

// To what the type that will hold it can hold: bf16 to nearest even, no NaN among the lanes.
inline Floats rounded_to(const float*, Floats v) { return v; }
inline Floats rounded_to(const bfloat16*, Floats v) {
  const Words bits = std::bit_cast<Words>(v);
  return std::bit_cast<Floats>((bits + 0x7FFFu + ((bits >> 16) & 1u)) & 0xFFFF0000u);
}

// Lanes that are bf16 numbers already.
inline void store(Floats v, bfloat16* to) {
  const Narrow narrow = __builtin_convertvector(std::bit_cast<Words>(v) >> 16, Narrow);
  __builtin_memcpy(to, &narrow, sizeof narrow);
}

// All lanes into one, by halves: op(a, b) of numbers and of vectors.
template <typename Op>
inline float fold(Floats v, Op op) {
#ifdef __AVX512F__
  const Eight eight = op(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                         __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
#else
  const Eight eight = v;
#endif
  const Four four = op(__builtin_shufflevector(eight, eight, 0, 1, 2, 3),  //
                       __builtin_shufflevector(eight, eight, 4, 5, 6, 7));
  return op(op(four[0], four[2]), op(four[1], four[3]));
}

inline float sum_of(Floats v) {
  return fold(v, [](auto a, auto b) { return a + b; });
}
inline float max_of(Floats v) {
  return fold(v, [](auto a, auto b) { return a > b ? a : b; });
}

// 2^x for x <= 127, by 2^n * p(r), |r| <= 1/2, p the degree-6 Taylor polynomial: relative error below 2e-7.
// 0 below -126; NaN stays.
inline Floats exp2_approx(Floats x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer held in the low bits
  const Floats clamped = x < -126.0f ? Floats{} - 126.0f : x;
  const Floats shifted = clamped + kRound;
  const Floats r = clamped - (shifted - kRound);
  Floats p = r * 1.5403530e-4f + 1.3333558e-3f;
  p = p * r + 9.6181291e-3f;
  p = p * r + 5.5504109e-2f;
  p = p * r + 2.4022651e-1f;
  p = p * r + 6.9314718e-1f;
  p = p * r + 1.0f;
  const Floats power = std::bit_cast<Floats>((std::bit_cast<Ints>(shifted) << 23) + 0x3F800000);
  return x < -126.0f ? Floats{} : p * power;
}

// One step of a streaming softmax (Milakov and Gimelshein, arXiv 1805.02867): scores (times log2 e) of which the first
// `valid` count become weights 2^(score - max), 0 where they do not count; *max and *sum are brought up to date.
// Returns 2^(old max - new max), the factor for what was summed up before.
// The weights are rounded to what an Element holds before they are summed, so that they are shares of one whole.
template <typename Element, int kVectors>
inline float softmax_step(Floats (&scores)[kVectors], int valid, float* max, float* sum) {
  const Floats none = Floats{} - __builtin_inff();
  Floats block_max = none;
  for (int i = 0; i < kVectors; ++i) {
    scores[i] = kIndex < valid - i * kLanes ? scores[i] : none;
    block_max = scores[i] > block_max ? scores[i] : block_max;
  }
  const float found = max_of(block_max);
  const float new_max = *max > found ? *max : found;
  Floats block_sum = {};
  for (int i = 0; i < kVectors; ++i) {
    scores[i] = rounded_to(static_cast<const Element*>(nullptr), exp2_approx(scores[i] - new_max));
    block_sum += scores[i];
  }
  const float factor = exp2_approx(Floats{} + (*max - new_max))[0];
  *sum = *sum * factor + sum_of(block_sum);
  *max = new_max;
  return factor;
}

}  // namespace
}  // namespace exp3rt
