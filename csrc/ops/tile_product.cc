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

constexpr std::int64_t kHalfBytes = kNearTileSteps * 2 * kTileBytes;

// So many tiles of rows meet the columns as they lie: copying them would cost more than it saves.
constexpr int kFewRowTiles = 8;

// 32 columns of B, half a panel: two tiles a step.
struct Columns {
  const char* at;
  std::int64_t step_bytes, tile_bytes, row_bytes;  // from one step, tile and row of a tile to the next
};

Columns as_they_lie(const char* b, int half) {
  return {b + half * 2 * kColumnBytes, kStepBytes, kColumnBytes, kColumnStride};
}

Columns near_ones(const char* near, int half) {
  return {near + half * kHalfBytes, 2 * kTileBytes, kTileBytes, kTileDepth};
}

// Copies a panel, half by half. As its columns lie, their lines fall into half of the sets of the L1 cache, which do not
// hold them.
void bring_near(const char* b, int steps, char* near) {
  for (int step = 0; step < steps; ++step, near += 2 * kTileBytes) {
    for (int row = 0; row < kTileRows; ++row, b += kColumnStride) {
      for (int column = 0; column < 4; ++column) {
        char* to =
            near + column / 2 * kHalfBytes + column % 2 * static_cast<std::int64_t>(kTileBytes) + row * kTileDepth;
        _mm512_store_si512(to, _mm512_load_si512(b + column * kColumnBytes));
      }
    }
  }
}

// Fetches the weights that come next into the L2 cache, a few lines with each step: they stream from memory otherwise.
struct Ahead {
  const char* next;
  int lines;
  void fetch() {
    for (int i = 0; i < lines; ++i) _mm_prefetch(next + i * 64, _MM_HINT_T1);
    next += lines * 64;
  }
};

// Some steps of 16 kRowTiles rows by 32 columns. The rows pass by the L1 cache, where the columns are.
template <bool kIntegers, int kRowTiles>
inline void multiply(const char* x, std::int64_t row_tile, Columns b, int steps, bool first, char* y,
                     std::int64_t row_bytes, Ahead& ahead) {
  char* lower = y + kTileRows * row_bytes;
  if (first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, y, row_bytes);
    _tile_loadd(1, y + kColumnBytes, row_bytes);
    if constexpr (kRowTiles == 2) {
      _tile_loadd(2, lower, row_bytes);
      _tile_loadd(3, lower + kColumnBytes, row_bytes);
    }
  }
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
    ahead.fetch();
  }
  _tile_stored(0, y, row_bytes);
  _tile_stored(1, y + kColumnBytes, row_bytes);
  if constexpr (kRowTiles == 2) {
    _tile_stored(2, lower, row_bytes);
    _tile_stored(3, lower + kColumnBytes, row_bytes);
  }
}

// All rows meet half a panel, from step `begin` on.
template <bool kIntegers>
void multiply_half(const TileProduct& product, const Columns& columns, int begin, int steps, char* y, Ahead& ahead) {
  const std::int64_t row_tile = product.steps * static_cast<std::int64_t>(kTileBytes);
  const std::int64_t row_bytes = product.stride * 4;
  const char* x = bytes(product.x) + begin * static_cast<std::int64_t>(kTileBytes);
  int row = 0;
  for (; row + 2 <= product.row_tiles; row += 2, x += 2 * row_tile, y += 2 * kTileRows * row_bytes)
    multiply<kIntegers, 2>(x, row_tile, columns, steps, begin == 0, y, row_bytes, ahead);
  if (row < product.row_tiles) multiply<kIntegers, 1>(x, row_tile, columns, steps, begin == 0, y, row_bytes, ahead);
}

// Depth is taken in parts that stay in the L2 cache while all panels pass; a panel comes from memory part by part.
template <bool kIntegers>
void multiply_panels(const TileProduct& product) {
  alignas(64) char near[2 * kHalfBytes];
  const bool few = product.row_tiles <= kFewRowTiles;
  const int passes = 2 * ((product.row_tiles + 1) / 2);
  const int lines = passes >= 4 ? (64 + passes - 1) / passes : 16;
  const std::int64_t panel_bytes = product.steps * kStepBytes;
  const int parts = few ? 1 : (product.steps + kNearTileSteps - 1) / kNearTileSteps;
  for (int part = 0; part < parts; ++part) {
    const int begin = part * product.steps / parts;
    const int steps = (part + 1) * product.steps / parts - begin;
    const char* b = bytes(product.b) + begin * kStepBytes;
    for (int panel = 0; panel < product.panels; ++panel, b += panel_bytes) {
      const bool last = panel + 1 == product.panels;
      Ahead ahead{last ? bytes(product.b) + (begin + steps) * kStepBytes : b + panel_bytes, lines};
      if (!few) bring_near(b, steps, near);
      char* y = static_cast<char*>(product.y) + panel * 4 * kColumnBytes;
      for (int half = 0; half < 2; ++half) {
        const Columns columns = few ? as_they_lie(b, half) : near_ones(near, half);
        multiply_half<kIntegers>(product, columns, begin, steps, y + half * 2 * kColumnBytes, ahead);
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
