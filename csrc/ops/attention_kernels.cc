// Compiled once for each instruction set (csrc/CMakeLists.txt), with EXP3RT_KERNELS naming it: fp32, or bf16 where the
// set multiplies it. A few query rows at a time, whose scores stay in registers from the product with the keys to the
// weights that meet the values (tiled as in FlashAttention, arXiv 2205.14135).
#include "ops/attention_kernels.h"

#include "ops/packed_matrix.h"
#include "ops/vectors.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define EXP3RT_JOIN2(a, b) a##b
#define EXP3RT_JOIN(a, b) EXP3RT_JOIN2(a, b)

namespace exp3rt {
namespace {

constexpr int kBlockVectors = kBlockTokens / kLanes;
constexpr int kPanelVectors = kPanelColumns / kLanes;

#ifdef __AVX512BF16__

using Element = bfloat16;
constexpr int kStep = 2;  // elements of x that one instruction takes
constexpr int kMaxRows = 6;

// sum + x[0] * b[0][:] + x[1] * b[1][:], the two rows of b interleaved
inline Floats multiply_add(const Element* x, const Element* b, Floats sum) {
  std::int32_t pair;
  __builtin_memcpy(&pair, x, sizeof pair);
  return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)_mm512_loadu_si512(b));
}

#else

using Element = float;
constexpr int kStep = 1;
#ifdef __AVX512F__
constexpr int kMaxRows = 6;
#else
constexpr int kMaxRows = 3;
#endif

inline Floats multiply_add(const Element* x, const Element* b, Floats sum) { return x[0] * load(b) + sum; }

#endif

// How far ahead memory is asked for. Keys and values of a sequence come from memory once a token; what the processor fetches
// by itself ends with each page of 4 KB.
constexpr int kAheadBytes = 4096;

// Vectors of columns that are summed up together: so many sums of kMaxRows rows stay in registers.
constexpr int kTogether = 4;

// sum[rows][kVectors] += x[rows, length] B, for the first columns of one panel of B. x has `stride` between rows. next: what is
// read after the panel.
template <int kRows, int kVectors>
inline void multiply(const Element* x, std::int64_t stride, const Element* panel, int length, const void* next,
                     Floats (&sum)[kRows][kVectors]) {
  constexpr int kRowBytes = kPanelColumns * sizeof(Element);
  const char* own = reinterpret_cast<const char*>(panel) + kAheadBytes;
  const char* behind = static_cast<const char*>(next ? next : panel) + kAheadBytes - length * kRowBytes;
  constexpr int kCount = kVectors < kTogether ? kVectors : kTogether;
  static_assert(kVectors % kCount == 0);
  for (int first = 0; first < kVectors; first += kCount) {
    const int column = first * kLanes * kStep;  // elements
    Floats part[kRows][kCount];
    for (int row = 0; row < kRows; ++row) {
      for (int v = 0; v < kCount; ++v) part[row][v] = sum[row][first + v];
    }
    for (int i = 0; i < length; i += kStep) {
      const char* ahead = i * kRowBytes + kAheadBytes < length * kRowBytes ? own : behind;
      const Element* b = panel + i * kPanelColumns + column;
      for (int v = 0; v < kCount; ++v)
        __builtin_prefetch(ahead + i * kRowBytes + column * sizeof(Element) + v * kLanes * 4);
      for (int row = 0; row < kRows; ++row) {
        for (int v = 0; v < kCount; ++v)
          part[row][v] = multiply_add(x + row * stride + i, b + v * kLanes * kStep, part[row][v]);
      }
    }
    for (int row = 0; row < kRows; ++row) {
      for (int v = 0; v < kCount; ++v) sum[row][first + v] = part[row][v];
    }
  }
}

// Rows [first, first + kRows), which see nothing beyond the first kVectors vectors of keys.
template <int kRows, int kVectors>
void attend(const AttentionRows& rows, int first, int last_valid) {
  const auto* queries = static_cast<const Element*>(rows.queries) + static_cast<std::int64_t>(first) * rows.query_dim;
  Floats scores[kRows][kVectors] = {};
  for (int half = 0; half < rows.key_dim; half += rows.query_dim) {
    const Element* keys = static_cast<const Element*>(rows.keys) + half * kBlockTokens;
    const bool last = half + rows.query_dim == rows.key_dim;
    const void* next = last ? rows.values : keys + rows.query_dim * kBlockTokens;
    multiply(queries, rows.query_dim, keys, rows.query_dim, next, scores);
  }

  Element weights[kRows][kBlockTokens];
  float factors[kRows];
  for (int row = 0; row < kRows; ++row) {
    const int at = first + row;
    factors[row] = softmax_step<Element>(scores[row], rows.valid[at], rows.max + at, rows.weight + at);
    for (int v = 0; v < kVectors; ++v) store(scores[row][v], weights[row] + v * kLanes);
  }

  const int length = (last_valid + kStep - 1) / kStep * kStep;  // weights beyond are 0
  const int width = rows.value_panels * static_cast<int>(kPanelColumns);
  for (int panel = 0; panel < rows.value_panels; ++panel) {
    const auto* values = static_cast<const Element*>(rows.values) + panel * kBlockTokens * kPanelColumns;
    Floats part[kRows][kPanelVectors] = {};
    const void* next = panel + 1 < rows.value_panels ? values + kBlockTokens * kPanelColumns : rows.next;
    multiply(weights[0], kBlockTokens, values, length, next, part);
    for (int row = 0; row < kRows; ++row) {
      float* sum = rows.sum + static_cast<std::int64_t>(first + row) * width + panel * kPanelColumns;
      for (int v = 0; v < kPanelVectors; ++v)
        store(load(sum + v * kLanes) * factors[row] + part[row][v], sum + v * kLanes);
    }
  }
}

template <int kRows>
void attend(const AttentionRows& rows, int first) {
  int last_valid = 0;
  for (int row = first; row < first + kRows; ++row)
    last_valid = rows.valid[row] > last_valid ? rows.valid[row] : last_valid;
  switch ((last_valid + kLanes - 1) / kLanes) {
    case 1: return attend<kRows, 1>(rows, first, last_valid);
    case 2: return attend<kRows, 2>(rows, first, last_valid);
    case 3: return attend<kRows, 3>(rows, first, last_valid);
    case 4: return attend<kRows, 4>(rows, first, last_valid);
    default: return attend<kRows, kBlockVectors>(rows, first, last_valid);
  }
}

template <int kRows>
void attend_rest(const AttentionRows& rows, int first) {
  if constexpr (kRows > 0) {
    if (rows.count - first == kRows) return attend<kRows>(rows, first);
    attend_rest<kRows - 1>(rows, first);
  }
}

void attend_all(const AttentionRows& rows) {
  int first = 0;
  for (; first + kMaxRows <= rows.count; first += kMaxRows) attend<kMaxRows>(rows, first);
  attend_rest<kMaxRows - 1>(rows, first);
}

}  // namespace

// Named by its instruction set; vector_dispatch.cc chooses.
extern const AttentionKernel EXP3RT_JOIN(attention_kernel_, EXP3RT_KERNELS);
const AttentionKernel EXP3RT_JOIN(attention_kernel_, EXP3RT_KERNELS) = attend_all;

}  // namespace exp3rt
