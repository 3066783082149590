// Compiled for AMX alone (csrc/CMakeLists.txt): products of tiles, 32 rows by 32 columns at a time.
#include "ops/tile_kernels.h"

namespace exp3rt {
namespace {

// Tile `sum` plus the product of tiles x and b. A macro, because the instruction names its tiles.
#define EXP3RT_ADD(sum, x, b)    \
  do {                           \
    if constexpr (kIntegers)     \
      _tile_dpbusd(sum, x, b);   \
    else                         \
      _tile_dpbf16ps(sum, x, b); \
  } while (false)

// So many tiles of rows meet the columns as they lie: keeping a copy would cost more than it saves.
constexpr int kFewRowTiles = 8;

// Some steps of 32 columns of B, half a panel: two tiles a step.
struct Columns {
  const char* at;
  std::int64_t step_bytes, tile_bytes, row_bytes;  // from one step, tile and row of a tile to the next
};

Columns as_they_lie(const char* half) { return {half, kStepBytes, kColumnBytes, kColumnStride}; }

Columns side_by_side(const char* copy) { return {copy, 2 * kTileBytes, kTileBytes, kTileDepth}; }

// Fetches the weights that come next into the L2 cache, a few lines with each step: they stream from memory otherwise.
struct Ahead {
  const char* next;
  int lines;
  void fetch() {
    for (int i = 0; i < lines; ++i) _mm_prefetch(next + i * 64, _MM_HINT_T1);
    next += lines * 64;
  }
};

// The sums of 32 rows by 32 columns, of which a part of the depth is to be added.
struct Sums {
  char* y;
  std::int64_t row_bytes;
  bool begun;  // y has those of the depth before

  char* row(int i) const { return y + i * row_bytes; }
  // What the next rows have so far is fetched, four lines with each step: a tile is loaded at once, and would wait.
  void fetch_next(int step) const {
    if (!begun || step >= kTileRows) return;
    for (int i = 0; i < 2; ++i) {
      const char* at = row(2 * (kTileRows + step) + i);
      _mm_prefetch(at, _MM_HINT_T0);
      _mm_prefetch(at + kColumnBytes, _MM_HINT_T0);
    }
  }
};

template <int kRowTiles>
inline void load(const Sums& sums) {
  if (!sums.begun) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    return;
  }
  _tile_loadd(0, sums.row(0), sums.row_bytes);
  _tile_loadd(1, sums.row(0) + kColumnBytes, sums.row_bytes);
  if constexpr (kRowTiles == 2) {
    _tile_loadd(2, sums.row(kTileRows), sums.row_bytes);
    _tile_loadd(3, sums.row(kTileRows) + kColumnBytes, sums.row_bytes);
  }
}

template <int kRowTiles>
inline void store(const Sums& sums) {
  _tile_stored(0, sums.row(0), sums.row_bytes);
  _tile_stored(1, sums.row(0) + kColumnBytes, sums.row_bytes);
  if constexpr (kRowTiles == 2) {
    _tile_stored(2, sums.row(kTileRows), sums.row_bytes);
    _tile_stored(3, sums.row(kTileRows) + kColumnBytes, sums.row_bytes);
  }
}

// Some steps of 16 kRowTiles rows by 32 columns. The rows pass by the L1 cache, where the columns are. With kCopy, these go
// to `copy` on the way, side by side.
template <bool kIntegers, int kRowTiles, bool kCopy = false>
inline void multiply(const char* x, std::int64_t row_tile, Columns b, int steps, const Sums& sums, Ahead& ahead,
                     char* copy = nullptr) {
  load<kRowTiles>(sums);
  for (int step = 0; step < steps; ++step, x += kTileBytes, b.at += b.step_bytes) {
    _tile_loadd(6, b.at, b.row_bytes);
    _tile_stream_loadd(4, x, kTileDepth);
    EXP3RT_ADD(0, 4, 6);
    _tile_loadd(7, b.at + b.tile_bytes, b.row_bytes);
    EXP3RT_ADD(1, 4, 7);
    if constexpr (kRowTiles == 2) {
      _tile_stream_loadd(5, x + row_tile, kTileDepth);
      EXP3RT_ADD(2, 5, 6);
      EXP3RT_ADD(3, 5, 7);
    }
    if constexpr (kCopy) {
      _tile_stored(6, copy, kTileDepth);
      _tile_stored(7, copy + kTileBytes, kTileDepth);
      copy += 2 * kTileBytes;
    }
    ahead.fetch();
    sums.fetch_next(step);
  }
  store<kRowTiles>(sums);
}

// All rows meet half a panel, from step `begin` on. As columns lie, their lines fall into half of the sets of the L1 cache,
// which do not hold them: where rows are many, the first of them copy the columns, and the others meet the copy.
template <bool kIntegers>
void multiply_half(const TileProduct& product, const char* half, int begin, int steps, Sums sums, Ahead& ahead) {
  alignas(64) char copy[kNearTileSteps * 2 * kTileBytes];
  const std::int64_t row_tile = product.steps * static_cast<std::int64_t>(kTileBytes);
  const char* x = bytes(product.x) + begin * static_cast<std::int64_t>(kTileBytes);
  Columns columns = as_they_lie(half);
  for (int row = 0; row < product.row_tiles; row += 2, x += 2 * row_tile, sums.y = sums.row(2 * kTileRows)) {
    if (row + 1 == product.row_tiles) {
      multiply<kIntegers, 1>(x, row_tile, columns, steps, sums, ahead);
    } else if (row == 0 && product.row_tiles > kFewRowTiles) {
      multiply<kIntegers, 2, true>(x, row_tile, columns, steps, sums, ahead, copy);
      columns = side_by_side(copy);
    } else {
      multiply<kIntegers, 2>(x, row_tile, columns, steps, sums, ahead);
    }
  }
}

// Depth is taken in parts that stay in the L2 cache while all panels pass; a panel comes from memory part by part.
template <bool kIntegers>
void multiply_panels(const TileProduct& product) {
  const int passes = 2 * ((product.row_tiles + 1) / 2);
  const int lines = passes >= 4 ? (64 + passes - 1) / passes : 16;
  const std::int64_t panel_bytes = product.steps * kStepBytes;
  const int parts = product.row_tiles <= kFewRowTiles ? 1 : (product.steps + kNearTileSteps - 1) / kNearTileSteps;
  for (int part = 0; part < parts; ++part) {
    const int begin = part * product.steps / parts;
    const int steps = (part + 1) * product.steps / parts - begin;
    const char* b = bytes(product.b) + begin * kStepBytes;
    for (int panel = 0; panel < product.panels; ++panel, b += panel_bytes) {
      const bool last = panel + 1 == product.panels;
      Ahead ahead{last ? bytes(product.b) + (begin + steps) * kStepBytes : b + panel_bytes, lines};
      for (int half = 0; half < 2; ++half) {
        char* y = static_cast<char*>(product.y) + (2 * panel + half) * 2 * kColumnBytes;
        multiply_half<kIntegers>(product, b + half * 2 * kColumnBytes, begin, steps, {y, product.stride * 4, part > 0},
                                 ahead);
      }
    }
  }
}

}  // namespace

void multiply_tiles(const TileProduct& product) {
  const TileSession session;
  if (product.dtype == DataType::kInt8)
    multiply_panels<true>(product);
  else
    multiply_panels<false>(product);
}

}  // namespace exp3rt
