// Compiled for AMX alone (csrc/CMakeLists.txt): attention in bf16, 32 query rows at a time. Scores of up to four KV blocks
// lie in the L1 cache between the products, so that a row's maximum, its factor and its sum are found once for all.
#include "ops/packed_matrix.h"
#include "ops/tile_kernels.h"

namespace exp3rt {
namespace {

constexpr int kRows = 2 * kTileRows;
constexpr int kSlots = TileAttention::kMaxBlocks * kBlockTokens;
// Rows lie a cache line farther apart than they need, so that a tile's rows fall into different sets of the cache.
constexpr int kScoreStride = kSlots + 16;
constexpr int kWeightStride = kSlots + 32;
constexpr std::int64_t kValuePanelBytes = kBlockTokens * kPanelColumns * 2;

struct Scratch {
  alignas(64) float scores[kRows * kScoreStride];
  alignas(64) std::uint16_t weights[kRows * kWeightStride];
};

// Rows [first, first + count) of the work, count <= 32, and the blocks that any of them sees.
struct Chunk {
  int first, count, num_blocks;
  bool lower() const { return count > kTileRows; }
};

void score(const TileAttention& rows, const Chunk& chunk, Scratch& scratch) {
  const std::int64_t query_bytes = rows.query_stride * 2;
  const char* upper = bytes(rows.queries) + chunk.first * query_bytes;
  const char* lower = upper + kTileRows * query_bytes;
  const int steps = rows.score_dim / 32;
  for (int block = 0; block < chunk.num_blocks; ++block) {
    for (int half = 0; half < 2; ++half) {
      const char* keys = bytes(rows.blocks[block].keys) + half * 2 * kColumnBytes;
      float* to = scratch.scores + block * kBlockTokens + half * 32;
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      for (int step = 0; step < steps; ++step, keys += kStepBytes) {
        _tile_loadd(4, upper + step * static_cast<std::int64_t>(kTileDepth), query_bytes);
        _tile_loadd(6, keys, kColumnStride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, keys + kColumnBytes, kColumnStride);
        _tile_dpbf16ps(1, 4, 7);
        if (chunk.lower()) {
          _tile_loadd(5, lower + step * static_cast<std::int64_t>(kTileDepth), query_bytes);
          _tile_dpbf16ps(2, 5, 6);
          _tile_dpbf16ps(3, 5, 7);
        }
      }
      _tile_stored(0, to, kScoreStride * 4);
      _tile_stored(1, to + 16, kScoreStride * 4);
      if (chunk.lower()) {
        _tile_stored(2, to + kTileRows * kScoreStride, kScoreStride * 4);
        _tile_stored(3, to + kTileRows * kScoreStride + 16, kScoreStride * 4);
      }
    }
  }
}

// 2^x by 2^n * p(r), |r| <= 1/2, p of the fourth degree with the least largest relative error, 3e-6, where a weight in bf16
// has 4e-3.
inline __m512 exp2_of(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(9.5701e-3f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.591786e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.4024745e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9312181e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.9999926e-1f));
  return _mm512_scalef_ps(p, n);
}

// A score that weighs nothing. (Not infinity: that less itself is no number.)
constexpr float kNone = -1e30f;

// Slots that a row may not see: those behind its last, and those of a block that hold no token.
void hide(const TileAttention& rows, int seen, int num_blocks, float* scores) {
  for (int block = 0; block < num_blocks; ++block) {
    const int left = seen - block * kBlockTokens;
    const int valid = left < rows.blocks[block].num_tokens ? left : rows.blocks[block].num_tokens;
    for (int i = 0; i < kBlockTokens && valid < kBlockTokens; i += 16) {
      const int first = valid - i;  // lanes from here on
      const auto mask = static_cast<__mmask16>(first >= 16 ? 0 : first <= 0 ? 0xFFFF : 0xFFFF << first);
      _mm512_mask_store_ps(scores + block * kBlockTokens + i, mask, _mm512_set1_ps(kNone));
    }
  }
}

// One row's step of the streaming softmax: its scores become weights in bf16, which are summed as they were rounded.
// Returns the factor for what was summed up before.
float soften(const TileAttention& rows, int row, int num_blocks, float* scores, std::uint16_t* weights) {
  const int seen = rows.seen ? rows.seen[row] : kSlots;
  if (seen <= 0) {
    for (int i = 0; i < num_blocks * kBlockTokens; i += 32) _mm512_store_si512(weights + i, _mm512_setzero_si512());
    return 1.0f;
  }
  hide(rows, seen, num_blocks, scores);
  __m512 largest[4];
  for (int v = 0; v < 4; ++v) largest[v] = _mm512_load_ps(scores + v * 16);
  for (int block = 1; block < num_blocks; ++block) {
    for (int v = 0; v < 4; ++v)
      largest[v] = _mm512_max_ps(largest[v], _mm512_load_ps(scores + block * kBlockTokens + v * 16));
  }
  const float found =
      _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(largest[0], largest[1]), _mm512_max_ps(largest[2], largest[3])));
  const float before = rows.max[row];
  const float now = before > found ? before : found;
  const __m512 maximum = _mm512_set1_ps(now);
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3F80);
  __m512 total[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (int block = 0; block < num_blocks; ++block) {
    for (int v = 0; v < 2; ++v) {
      const int at = block * kBlockTokens + v * 32;
      const __m512 low = exp2_of(_mm512_sub_ps(_mm512_load_ps(scores + at), maximum));
      const __m512 high = exp2_of(_mm512_sub_ps(_mm512_load_ps(scores + at + 16), maximum));
      const __m512bh pair = _mm512_cvtne2ps_pbh(high, low);
      total[v] = _mm512_dpbf16_ps(total[v], pair, ones);
      _mm512_store_si512(weights + at, (__m512i)pair);
    }
  }
  const float factor = before == now ? 1.0f : _mm512_cvtss_f32(exp2_of(_mm512_set1_ps(before - now)));
  rows.weight[row] = rows.weight[row] * factor + _mm512_reduce_add_ps(_mm512_add_ps(total[0], total[1]));
  rows.max[row] = now;
  return factor;
}

void soften_all(const TileAttention& rows, const Chunk& chunk, Scratch& scratch) {
  const int width = rows.value_panels * static_cast<int>(kPanelColumns);
  for (int i = 0; i < chunk.count; ++i) {
    const int row = chunk.first + i;
    const float factor =
        soften(rows, row, chunk.num_blocks, scratch.scores + i * kScoreStride, scratch.weights + i * kWeightStride);
    if (factor == 1.0f) continue;
    float* sum = rows.sum + static_cast<std::int64_t>(row) * width;
    for (int v = 0; v < width; v += 16)
      _mm512_store_ps(sum + v, _mm512_mul_ps(_mm512_load_ps(sum + v), _mm512_set1_ps(factor)));
  }
}

void add_values(const TileAttention& rows, const Chunk& chunk, const Scratch& scratch) {
  const std::int64_t sum_bytes = rows.value_panels * kPanelColumns * 4;
  for (int part = 0; part < 2 * rows.value_panels; ++part) {
    char* upper = reinterpret_cast<char*>(rows.sum) + chunk.first * sum_bytes + part * 2 * kColumnBytes;
    char* lower = upper + kTileRows * sum_bytes;
    _tile_loadd(0, upper, sum_bytes);
    _tile_loadd(1, upper + kColumnBytes, sum_bytes);
    if (chunk.lower()) {
      _tile_loadd(2, lower, sum_bytes);
      _tile_loadd(3, lower + kColumnBytes, sum_bytes);
    }
    for (int step = 0; step < 2 * chunk.num_blocks; ++step) {
      const char* values = bytes(rows.blocks[step / 2].values) + part / 2 * kValuePanelBytes + step % 2 * kStepBytes +
                           part % 2 * 2 * kColumnBytes;
      const std::uint16_t* weights = scratch.weights + step * 32;
      _tile_loadd(4, weights, kWeightStride * 2);
      _tile_loadd(6, values, kColumnStride);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, values + kColumnBytes, kColumnStride);
      _tile_dpbf16ps(1, 4, 7);
      if (chunk.lower()) {
        _tile_loadd(5, weights + kTileRows * kWeightStride, kWeightStride * 2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, upper, sum_bytes);
    _tile_stored(1, upper + kColumnBytes, sum_bytes);
    if (chunk.lower()) {
      _tile_stored(2, lower, sum_bytes);
      _tile_stored(3, lower + kColumnBytes, sum_bytes);
    }
  }
}

int blocks_seen(const TileAttention& rows, int first, int count) {
  if (!rows.seen) return rows.num_blocks;
  int most = 0;
  for (int i = first; i < first + count; ++i) most = rows.seen[i] > most ? rows.seen[i] : most;
  const int blocks = (most + kBlockTokens - 1) / kBlockTokens;
  return blocks < rows.num_blocks ? blocks : rows.num_blocks;
}

}  // namespace

void attend_tiles(const TileAttention& rows) {
  static thread_local Scratch scratch;
  TileSession session;
  for (int first = 0; first < rows.count; first += kRows) {
    const int count = rows.count - first < kRows ? rows.count - first : kRows;
    const Chunk chunk{first, count, blocks_seen(rows, first, count)};
    if (chunk.num_blocks == 0) continue;
    session.set_rows(count < kTileRows ? count : kTileRows, chunk.lower() ? count - kTileRows : kTileRows);
    score(rows, chunk, scratch);
    soften_all(rows, chunk, scratch);
    add_values(rows, chunk, scratch);
  }
}

}  // namespace exp3rt
