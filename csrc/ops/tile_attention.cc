// Compiled for AMX alone (csrc/CMakeLists.txt): attention in bf16, 32 query rows at a time. Scores of up to four KV blocks
// lie in the L1 cache between the products, and become weights where they lie; keys and values pass it by.
#include "ops/packed_matrix.h"
#include "ops/tile_kernels.h"
#include "ops/tile_softmax.h"

namespace exp3rt {
namespace {

constexpr int kRows = 2 * kTileRows;
constexpr std::int64_t kValuePanelBytes = kBlockTokens * kPanelColumns * 2;
constexpr std::int64_t kScoreBytes = kScoreStride * 4;

// Rows [first, first + count) of the work, 32 at most, and the steps, two a block, with keys that any of them sees.
struct Chunk {
  int first, count, num_steps;
  int upper() const { return count < kTileRows ? count : kTileRows; }
  int lower() const { return count - upper(); }
};

// Fetches what comes next a few lines at a time, between the products: a core waits for some 16 lines at once, and what asks for
// more of them stands still.
class Ahead {
 public:
  Ahead(const TileAhead& next, int times) : next_(next) {
    const int lines = next.num_pieces * next.piece_bytes / kLine;
    lines_ = (lines + times - 1) / times;
  }

  void fetch() {
    for (int i = 0; i < lines_; ++i, at_ += kLine) {
      if (at_ == end_) {
        if (piece_ == next_.num_pieces) return;
        at_ = bytes(next_.pieces[piece_++]);
        end_ = at_ + next_.piece_bytes;
      }
      _mm_prefetch(at_, _MM_HINT_T1);
    }
  }

 private:
  static constexpr int kLine = 64;
  const TileAhead& next_;
  int lines_, piece_ = 0;
  const char *at_ = nullptr, *end_ = nullptr;
};

void score(const TileAttention& rows, const Chunk& chunk, Ahead& ahead, float* scores) {
  const std::int64_t query_bytes = rows.query_dim * 2;
  const char* upper = bytes(rows.queries) + chunk.first * query_bytes;
  const char* lower = upper + kTileRows * query_bytes;
  const int depths = rows.key_dim / 32, query_depths = rows.query_dim / 32;
  for (int step = 0; step < chunk.num_steps; ++step) {
    const char* keys = bytes(rows.blocks[step / 2].keys) + step % 2 * 2 * kColumnBytes;
    char* to = reinterpret_cast<char*>(scores) + step * 2 * kColumnBytes;
    ahead.fetch();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int depth = 0; depth < depths; ++depth, keys += kStepBytes) {
      const std::int64_t at = depth % query_depths * static_cast<std::int64_t>(kTileDepth);
      _tile_loadd(4, upper + at, query_bytes);
      _tile_stream_loadd(6, keys, kColumnStride);
      _tile_dpbf16ps(0, 4, 6);
      _tile_stream_loadd(7, keys + kColumnBytes, kColumnStride);
      _tile_dpbf16ps(1, 4, 7);
      if (chunk.lower() > 0) {
        _tile_loadd(5, lower + at, query_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, to, kScoreBytes);
    _tile_stored(1, to + kColumnBytes, kScoreBytes);
    if (chunk.lower() > 0) {
      to += kTileRows * kScoreBytes;
      _tile_stored(2, to, kScoreBytes);
      _tile_stored(3, to + kColumnBytes, kScoreBytes);
    }
  }
}

void add_values(const TileAttention& rows, const Chunk& chunk, Ahead& ahead, const float* weights) {
  const std::int64_t sum_bytes = rows.value_panels * kPanelColumns * 4;
  for (int part = 0; part < 2 * rows.value_panels; ++part) {
    char* upper = reinterpret_cast<char*>(rows.sum) + chunk.first * sum_bytes + part * 2 * kColumnBytes;
    char* lower = upper + kTileRows * sum_bytes;
    _tile_loadd(0, upper, sum_bytes);
    _tile_loadd(1, upper + kColumnBytes, sum_bytes);
    if (chunk.lower() > 0) {
      _tile_loadd(2, lower, sum_bytes);
      _tile_loadd(3, lower + kColumnBytes, sum_bytes);
    }
    for (int step = 0; step < chunk.num_steps; ++step) {
      const char* values = bytes(rows.blocks[step / 2].values) + part / 2 * kValuePanelBytes + step % 2 * kStepBytes +
                           part % 2 * 2 * kColumnBytes;
      ahead.fetch();
      const char* at = bytes(weights) + step * static_cast<std::int64_t>(kTileDepth);
      _tile_loadd(4, at, kScoreBytes);
      _tile_stream_loadd(6, values, kColumnStride);
      _tile_dpbf16ps(0, 4, 6);
      _tile_stream_loadd(7, values + kColumnBytes, kColumnStride);
      _tile_dpbf16ps(1, 4, 7);
      if (chunk.lower() > 0) {
        _tile_loadd(5, at + kTileRows * kScoreBytes, kScoreBytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, upper, sum_bytes);
    _tile_stored(1, upper + kColumnBytes, sum_bytes);
    if (chunk.lower() > 0) {
      _tile_stored(2, lower, sum_bytes);
      _tile_stored(3, lower + kColumnBytes, sum_bytes);
    }
  }
}

// Keys of the blocks, up to the last that holds a token.
int num_keys(const TileAttention& rows) {
  return (rows.num_blocks - 1) * kBlockTokens + rows.blocks[rows.num_blocks - 1].num_tokens;
}

int num_steps(int keys) { return (keys + kStepKeys - 1) / kStepKeys; }

// How often the products of all chunks look ahead, where every row sees every key.
int num_looks(const TileAttention& rows) {
  return (rows.count + kRows - 1) / kRows * num_steps(num_keys(rows)) * (1 + 2 * rows.value_panels);
}

Chunk chunk_at(const TileAttention& rows, int first) {
  const int left = rows.count - first;
  const int count = left < kRows ? left : kRows;
  const int held = num_keys(rows);
  int most = rows.seen ? 0 : held;
  for (int i = first; i < first + count && rows.seen; ++i) most = rows.seen[i] > most ? rows.seen[i] : most;
  most = most < held ? most : held;
  return {first, count, num_steps(most)};
}

}  // namespace

void attend_tiles(const TileAttention& rows) {
  alignas(64) float scores[kRows * kScoreStride];
  TileSession session;
  Ahead ahead(rows.ahead, num_looks(rows));
  for (int first = 0; first < rows.count; first += kRows) {
    const Chunk chunk = chunk_at(rows, first);
    if (chunk.num_steps <= 0) continue;
    session.set_rows(chunk.upper(), chunk.lower() > 0 ? chunk.lower() : kTileRows);
    score(rows, chunk, ahead, scores);
    soften(rows, first, chunk.upper(), chunk.num_steps, scores);
    soften(rows, first + kTileRows, chunk.lower(), chunk.num_steps, scores + kTileRows * kScoreStride);
    add_values(rows, chunk, ahead, scores);
  }
}

}  // namespace exp3rt
