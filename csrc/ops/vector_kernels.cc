// Compiled once for each instruction set (CMakeLists.txt), with EXP3RT_KERNELS naming it. Plain loops that the compiler
// vectorizes, and vectors where it does not. Every function is local to this file: one shared with others could be linked into code that runs where
// this instruction set is missing.
#include "ops/vector_kernels.h"

#include <bit>
#include <cmath>

#include "core/types.h"
#include "ops/packed_matrix.h"
#include "ops/tiles.h"
#include "ops/vectors.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define EXP3RT_JOIN2(a, b) a##b
#define EXP3RT_JOIN(a, b) EXP3RT_JOIN2(a, b)

namespace exp3rt {
namespace {

float dot(const float* x, const float* y, std::int64_t n) {
  Floats sums[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) sums[j] += load(x + i + j * kLanes) * load(y + i + j * kLanes);
  }
  for (; i + kLanes <= n; i += kLanes) sums[0] += load(x + i) * load(y + i);
  if (i < n) sums[1] += load_some(x + i, n - i) * load_some(y + i, n - i);
  return sum_of((sums[0] + sums[1]) + (sums[2] + sums[3]));
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

constexpr float kLog2E = 1.44269504f;

#ifdef __AVX512F__

// 2^x, x <= 127, by 2^floor(x) * p(x - floor(x)), p of the fifth degree with the least largest relative error, 2e-7.
inline __m512 exp2_of(__m512 x) {
  const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(1.87757669e-3f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.9893397e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.5826318e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.24015361f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.69315308f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.99999994f));
  return _mm512_scalef_ps(p, x);
}

// The quotient by an estimate of the reciprocal and a step of Newton's method: a division takes longer than all else here.
inline Floats silu(Floats x) {
  const __m512 exponent = _mm512_min_ps(_mm512_set1_ps(126.0f), (__m512)(-kLog2E * x));  // NaN stays
  const __m512 divisor = (__m512)(1.0f + (Floats)exp2_of(exponent));
  const __m512 near = _mm512_rcp14_ps(divisor);
  const __m512 exact = _mm512_mul_ps(near, _mm512_fnmadd_ps(divisor, near, _mm512_set1_ps(2.0f)));
  return x * (Floats)exact;
}

#else

inline Floats silu(Floats x) {
  const Floats exponent = -kLog2E * x;
  return x / (1.0f + exp2_approx(exponent > 126.0f ? Floats{} + 126.0f : exponent));
}

#endif

inline Floats gated(const float* gate, const float* up) { return silu(load(gate)) * load(up); }
inline Floats gated(const float* gate, const float* up, std::int64_t count) {
  return count >= kLanes ? gated(gate, up) : silu(load_some(gate, count)) * load_some(up, count);
}

void swiglu(float* gate, const float* up, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(gated(gate + i, up + i), gate + i);
  if (i == n) return;
  const Floats rest = gated(gate + i, up + i, n - i);
  __builtin_memcpy(gate + i, &rest, static_cast<std::size_t>(n - i) * sizeof(float));
}

void scale_add(float* x, float factor, const float* y, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) x[i] = x[i] * factor + y[i];
}

void scale(const float* x, float factor, std::int64_t n, float* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = x[i] * factor;
}

inline bfloat16 rounded(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t nearest = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t quiet_nan = (bits >> 16) | 0x40u;
  return static_cast<bfloat16>((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet_nan : nearest);
}

inline float widened(bfloat16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x) << 16); }

#ifdef __AVX512BF16__

inline __mmask16 first_lanes(std::int64_t count) {
  return static_cast<__mmask16>(count >= kLanes ? 0xFFFF : (1 << count) - 1);
}

void round_to_bfloat16(const float* x, std::int64_t n, bfloat16* out) {
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 lanes = first_lanes(n - i);
    _mm256_mask_storeu_epi16(out + i, lanes, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, x + i)));
  }
}

void split_bfloat16(const float* x, std::int64_t n, bfloat16* value, bfloat16* rest) {
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 lanes = first_lanes(n - i);
    const __m512 exact = _mm512_maskz_loadu_ps(lanes, x + i);
    const __m256bh near = _mm512_cvtneps_pbh(exact);
    const __m512 wide = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)near), 16);
    _mm256_mask_storeu_epi16(value + i, lanes, (__m256i)near);
    _mm256_mask_storeu_epi16(rest + i, lanes, (__m256i)_mm512_cvtneps_pbh(_mm512_sub_ps(exact, wide)));
  }
}

void round_to_tiles(const float* x, std::int64_t n, bfloat16* out) {
  for (std::int64_t i = 0; i < n; i += 32, out += kTileBytes / sizeof(bfloat16)) {
    const __m512 low = _mm512_maskz_loadu_ps(first_lanes(n - i), x + i);
    const __m512 high =
        n - i > kLanes ? _mm512_maskz_loadu_ps(first_lanes(n - i - kLanes), x + i + kLanes) : _mm512_setzero_ps();
    _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
}

void swiglu_to_tiles(const float* gate, const float* up, std::int64_t n, bfloat16* out) {
  for (std::int64_t i = 0; i < n; i += 32, out += kTileBytes / sizeof(bfloat16)) {
    const Floats low = gated(gate + i, up + i, n - i);
    const Floats high = n - i > kLanes ? gated(gate + i + kLanes, up + i + kLanes, n - i - kLanes) : Floats{};
    _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
  }
}

// Lanes of 32 bits, of which the lower half is stored.
void round_to_every_other(const float* x, std::int64_t n, bfloat16* out) {
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const __m256bh near = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(first_lanes(n - i), x + i));
    const __m512i wide = _mm512_cvtepu16_epi32((__m256i)near);
    const __mmask32 halves = n - i >= kLanes ? 0x55555555u : 0x55555555u & ((1u << (2 * (n - i))) - 1);
    _mm512_mask_storeu_epi16(out + 2 * i, halves, wide);
  }
}

#else

void round_to_tiles(const float* x, std::int64_t n, bfloat16* out) {
  for (std::int64_t i = 0; i < (n + 31) / 32 * 32; ++i) {
    out[i / 32 * static_cast<std::int64_t>(kTileBytes / sizeof(bfloat16)) + i % 32] =
        i < n ? rounded(x[i]) : bfloat16{};
  }
}

void swiglu_to_tiles(const float* gate, const float* up, std::int64_t n, bfloat16* out) {
  for (std::int64_t i = 0; i < n; i += 32, out += kTileBytes / sizeof(bfloat16)) {
    float values[32];
    const std::int64_t count = n - i < 32 ? n - i : 32;
    __builtin_memcpy(values, gate + i, static_cast<std::size_t>(count) * sizeof(float));
    swiglu(values, up + i, count);
    round_to_tiles(values, count, out);
  }
}

void round_to_every_other(const float* x, std::int64_t n, bfloat16* out) {
  for (std::int64_t i = 0; i < n; ++i) out[2 * i] = rounded(x[i]);
}

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

#endif

void widen(const bfloat16* x, std::int64_t n, float* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = widened(x[i]);
}

// One step of the transform within a vector: lanes whose numbers differ in one bit become their sum and difference.
template <int kBit>
inline Floats butterfly(Floats v) {
  const Floats other = __builtin_shuffle(v, kIndex ^ kBit);
  return (kIndex & kBit) != 0 ? other - v : v + other;
}

inline Floats within_vector(Floats v) {
  v = butterfly<4>(butterfly<2>(butterfly<1>(v)));
  if constexpr (kLanes > 8) v = butterfly<8>(v);
  return v;
}

void hadamard(float* x, std::int64_t n, std::int64_t block) {
  for (std::int64_t begin = 0; begin + block <= n; begin += block) {
    float* at = x + begin;
    for (std::int64_t i = 0; i < block; i += kLanes) store(within_vector(load(at + i)), at + i);
    for (std::int64_t step = kLanes; step < block; step *= 2) {
      for (std::int64_t i = 0; i < block; i += 2 * step) {
        for (std::int64_t j = i; j < i + step; j += kLanes) {
          const Floats a = load(at + j), b = load(at + j + step);
          store(a + b, at + j);
          store(a - b, at + j + step);
        }
      }
    }
  }
}

// The largest magnitude; NaN if any is NaN, whose bits are the largest of all.
float max_magnitude(const float* x, std::int64_t n) {
  std::int32_t largest = 0;
#pragma omp simd reduction(max : largest)
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t bits = std::bit_cast<std::int32_t>(x[i]) & 0x7FFFFFFF;
    largest = bits > largest ? bits : largest;
  }
  return std::bit_cast<float>(largest);
}

// To the nearest, 0 at 128; |x| <= 127.
inline std::uint8_t quantized(float x) { return static_cast<std::uint8_t>(static_cast<std::int32_t>(x + 128.5f)); }

float quantize(const float* x, std::int64_t n, std::uint8_t* out) {
  const float largest = max_magnitude(x, n);
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = quantized(x[i] * inverse);
  return largest / 127.0f;
}

float quantize_split(const float* x, std::int64_t n, std::uint8_t* value, std::uint8_t* rest) {
  const float largest = max_magnitude(x, n);
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const float scaled = x[i] * inverse;
    value[i] = quantized(scaled);
    const float lost = (scaled - static_cast<float>(value[i] - 128)) * 254.0f;
    rest[i] = quantized(lost > 127.0f ? 127.0f : (lost < -127.0f ? -127.0f : lost));
  }
  return largest / 127.0f;
}

// `sums` are read as bytes: they may lie where y is written.
void dequantize(const void* sums, const std::int32_t* offset, const float* scale, float row_scale, std::int64_t n,
                float* y) {
  for (std::int64_t i = 0; i < n; ++i) {
    std::int32_t sum;
    __builtin_memcpy(&sum, static_cast<const char*>(sums) + i * 4, sizeof sum);
    const float value = static_cast<float>(sum - offset[i]) * (scale[i] * row_scale);
    __builtin_memcpy(reinterpret_cast<char*>(y) + i * 4, &value, sizeof value);
  }
}

#ifdef __AVX512BF16__

inline __m512 load_scaled(const std::int8_t* from, __m512 scale) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), scale);
}

// Two rows lie interleaved: their scales alternate.
void widen_pairs(const std::int8_t* x, const float* scale, int rows, bfloat16* out) {
  for (int row = 0; row < rows; row += 2) {
    const __m512 scales = _mm512_mask_blend_ps(0xAAAA, _mm512_set1_ps(scale[row]), _mm512_set1_ps(scale[row + 1]));
    for (std::int64_t i = row * kPanelColumns; i < (row + 2) * kPanelColumns; i += 2 * kLanes) {
      const __m512 low = load_scaled(x + i, scales), high = load_scaled(x + i + kLanes, scales);
      _mm512_storeu_si512(out + i, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
  }
}

#else

void widen_pairs(const std::int8_t* x, const float* scale, int rows, bfloat16* out) {
  for (int row = 0; row < rows; row += 2) {
    for (std::int64_t i = 0; i < 2 * kPanelColumns; ++i) {
      const std::int64_t at = row * kPanelColumns + i;
      out[at] = rounded(static_cast<float>(x[at]) * scale[row + i % 2]);
    }
  }
}

#endif

void widen_int8(DataType dtype, const std::int8_t* x, const float* scale, int rows, void* out) {
  if (dtype == DataType::kBFloat16) return widen_pairs(x, scale, rows, static_cast<bfloat16*>(out));
  auto* to = static_cast<float*>(out);
  for (int row = 0; row < rows; ++row, x += kPanelColumns, to += kPanelColumns) {
#pragma omp simd
    for (std::int64_t i = 0; i < kPanelColumns; ++i) to[i] = static_cast<float>(x[i]) * scale[row];
  }
}

}  // namespace

// Named by its instruction set; vector_dispatch.cc chooses.
extern const VectorKernels EXP3RT_JOIN(vector_kernels_, EXP3RT_KERNELS);
const VectorKernels EXP3RT_JOIN(vector_kernels_, EXP3RT_KERNELS) = {
    rms_norm,
    rotate,
    swiglu,
    swiglu_to_tiles,
    scale_add,
    scale,
    dot,
    round_to_bfloat16,
    round_to_every_other,
    round_to_tiles,
    split_bfloat16,
    widen,
    hadamard,
    quantize,
    quantize_split,
    dequantize,
    widen_int8,
};

}  // namespace exp3rt
