// The streaming softmax (Milakov and Gimelshein, arXiv 1805.02867) of a tile's rows, on AMX machines. Local to the file that
// includes it: such code must not be linked into others.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "ops/tiles.h"

namespace exp3rt {
namespace {

// Between the rows of scores, of up to kMaxStepBlocks blocks: a cache line farther than they need, so that the rows of a tile
// fall into different sets of the cache.
constexpr int kScoreStride = kMaxStepBlocks * kBlockTokens + 16;

// Keys of half a block: what goes through the products in one step.
constexpr int kStepKeys = kBlockTokens / 2;

// A score that weighs nothing, far below any and any maximum. (Not infinity: that less itself is no number.)
constexpr float kNone = -1e30f;

// 2^x, x <= 0, by 2^floor(x) * p(x - floor(x)), p of the third degree with the least largest relative error, 8e-5, where a
// weight in bf16 has 4e-3.
inline __m512 exp2_of(__m512 x) {
  constexpr int kLessFloor = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
  const __m512 r = _mm512_reduce_ps(x, kLessFloor);
  __m512 p = _mm512_set1_ps(7.802452e-2f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.2606716e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9583354e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.9992522e-1f));
  return _mm512_scalef_ps(p, x);
}

// Lane i of the result: op over all lanes of rows[i].
template <typename Op>
inline __m512 fold(const __m512 (&rows)[kTileRows], Op op) {
  __m512 four[4];  // rows 4 i ... 4 i + 3, each in one lane of every quarter
  for (int i = 0; i < 4; ++i) {
    const __m512* r = rows + 4 * i;
    const __m512d a = (__m512d)op(_mm512_unpacklo_ps(r[0], r[1]), _mm512_unpackhi_ps(r[0], r[1]));
    const __m512d b = (__m512d)op(_mm512_unpacklo_ps(r[2], r[3]), _mm512_unpackhi_ps(r[2], r[3]));
    four[i] = op((__m512)_mm512_unpacklo_pd(a, b), (__m512)_mm512_unpackhi_pd(a, b));
  }
  const auto by_quarters = [op](__m512 a, __m512 b) {
    return op(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
  };
  return by_quarters(by_quarters(four[0], four[1]), by_quarters(four[2], four[3]));
}

// Slots that a row may not see: those behind its last, and those of a block that hold no token. Of the steps from `first` on, with
// the ones before full.
inline void hide(const TileAttention& rows, int row, int first, int num_steps, float* scores) {
  if (rows.seen && rows.seen[row] < first * kStepKeys) first = rows.seen[row] > 0 ? rows.seen[row] / kStepKeys : 0;
  for (int step = first; step < num_steps; ++step) {
    const int left = rows.seen ? rows.seen[row] - step * kStepKeys : kStepKeys;
    const int held = rows.blocks[step / 2].num_tokens - step % 2 * kStepKeys;
    const int valid = left < held ? left : held;
    for (int i = 0; i < kStepKeys && valid < kStepKeys; i += 16) {
      const int from = valid - i;  // lanes from here on
      const auto mask = static_cast<__mmask16>(from >= 16 ? 0 : from <= 0 ? 0xFFFF : 0xFFFF << from);
      _mm512_mask_store_ps(scores + step * kStepKeys + i, mask, _mm512_set1_ps(kNone));
    }
  }
}

// Steps before the first one whose slots do not all hold a token.
inline int num_full_steps(const TileAttention& rows) {
  int block = 0;
  while (block < rows.num_blocks && rows.blocks[block].num_tokens == kBlockTokens) ++block;
  return 2 * block + (block < rows.num_blocks ? rows.blocks[block].num_tokens / kStepKeys : 0);
}

inline __m512 largest(const float* scores, int num_steps) {
  __m512 low = _mm512_load_ps(scores), high = _mm512_load_ps(scores + 16);
  for (int step = 1; step < num_steps; ++step) {
    low = _mm512_max_ps(low, _mm512_load_ps(scores + step * kStepKeys));
    high = _mm512_max_ps(high, _mm512_load_ps(scores + step * kStepKeys + 16));
  }
  return _mm512_max_ps(low, high);
}

// Scores of one step become weights in bf16.
inline __m512bh weights_of(const float* scores, __m512 maximum) {
  const __m512 low = exp2_of(_mm512_sub_ps(_mm512_load_ps(scores), maximum));
  const __m512 high = exp2_of(_mm512_sub_ps(_mm512_load_ps(scores + 16), maximum));
  return _mm512_cvtne2ps_pbh(high, low);
}

// A row's scores become weights, which begin where the scores do. Returns their sum, as they were rounded.
inline __m512 weigh(float* scores, int num_steps, float maximum) {
  const __m512 most = _mm512_set1_ps(maximum);
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3F80);
  __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
  auto* weights = reinterpret_cast<std::uint16_t*>(scores);
  int at = 0;
  for (; at + kStepKeys < num_steps * kStepKeys; at += 2 * kStepKeys) {
    const __m512bh first = weights_of(scores + at, most), second = weights_of(scores + at + kStepKeys, most);
    even = _mm512_dpbf16_ps(even, first, ones);
    odd = _mm512_dpbf16_ps(odd, second, ones);
    _mm512_store_si512(weights + at, (__m512i)first);
    _mm512_store_si512(weights + at + kStepKeys, (__m512i)second);
  }
  if (at < num_steps * kStepKeys) {
    const __m512bh last = weights_of(scores + at, most);
    even = _mm512_dpbf16_ps(even, last, ones);
    _mm512_store_si512(weights + at, (__m512i)last);
  }
  return _mm512_add_ps(even, odd);
}

inline void scale_sum(const TileAttention& rows, int row, float factor) {
  const int width = rows.value_panels * static_cast<int>(kPanelColumns);
  float* sum = rows.sum + static_cast<std::int64_t>(row) * width;
  for (int v = 0; v < width; v += 16)
    _mm512_store_ps(sum + v, _mm512_mul_ps(_mm512_load_ps(sum + v), _mm512_set1_ps(factor)));
}

// For up to 16 rows from `first` on: their scores become weights, and what was summed up before is scaled to the
// new maximum. Maxima, factors and sums are found for all rows at once.
inline void soften(const TileAttention& rows, int first, int count, int num_steps, float* scores) {
  if (count == 0) return;
  const int full = num_full_steps(rows);
  __m512 of_row[kTileRows] = {};
  for (int i = 0; i < count; ++i) hide(rows, first + i, full, num_steps, scores + i * kScoreStride);
  for (int i = 0; i < count; ++i) of_row[i] = largest(scores + i * kScoreStride, num_steps);
  const auto lanes = static_cast<__mmask16>((1u << count) - 1);
  const __m512 before = _mm512_maskz_loadu_ps(lanes, rows.max + first);
  const __m512 now = _mm512_max_ps(before, fold(of_row, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); }));
  _mm512_mask_storeu_ps(rows.max + first, lanes, now);

  for (int i = 0; i < count; ++i) of_row[i] = weigh(scores + i * kScoreStride, num_steps, rows.max[first + i]);
  const __m512 added = fold(of_row, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); });
  const __m512 factor = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(before, now, _CMP_EQ_OQ),
                                             exp2_of(_mm512_sub_ps(before, now)), _mm512_set1_ps(1.0f));
  const __m512 weight = _mm512_maskz_loadu_ps(lanes, rows.weight + first);
  _mm512_mask_storeu_ps(rows.weight + first, lanes, _mm512_fmadd_ps(weight, factor, added));
  alignas(64) float factors[kTileRows];
  _mm512_store_ps(factors, factor);
  for (int i = 0; i < count; ++i) {
    if (factors[i] != 1.0f) scale_sum(rows, first + i, factors[i]);
  }
}

}  // namespace
}  // namespace exp3rt
