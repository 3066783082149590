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

// Fetches the weights that come next into the L2 cache, a few lines with each step: they stream from memory otherwise.
struct Ahead {
  const char* next;
  int lines;
  void fetch() {
    for (int i = 0; i < lines; ++i) _mm_prefetch(next + i * 64, _MM_HINT_T1);
    next += lines * 64;
  }
};

// 16 kRowTiles rows of x by 32 columns
template <bool kIntegers, int kRowTiles>
inline void multiply(const char* x, const char* b, int steps, char* y, std::int64_t stride, Ahead& ahead) {
  const std::int64_t row_tile = steps * static_cast<std::int64_t>(kTileBytes);
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (kRowTiles == 2) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int step = 0; step < steps; ++step, x += kTileBytes, b += kStepBytes) {
    _tile_stream_loadd(6, b, kColumnStride);
    _tile_loadd(4, x, kTileDepth);
    EXP3RT_ADD(0, 4, 6);
    _tile_stream_loadd(7, b + kColumnBytes, kColumnStride);
    EXP3RT_ADD(1, 4, 7);
    if constexpr (kRowTiles == 2) {
      _tile_loadd(5, x + row_tile, kTileDepth);
      EXP3RT_ADD(2, 5, 6);
      EXP3RT_ADD(3, 5, 7);
    }
    ahead.fetch();
  }
  const std::int64_t row_bytes = stride * 4;
  _tile_stored(0, y, row_bytes);
  _tile_stored(1, y + kColumnBytes, row_bytes);
  if constexpr (kRowTiles == 2) {
    y += kTileRows * row_bytes;
    _tile_stored(2, y, row_bytes);
    _tile_stored(3, y + kColumnBytes, row_bytes);
  }
}

// All rows meet one panel of columns, half by half, so that 32 columns stay near while the rows pass.
template <bool kIntegers>
void multiply_panel(const TileProduct& product, const char* b, char* y) {
  const std::int64_t row_tile = product.steps * static_cast<std::int64_t>(kTileBytes);
  const std::int64_t row_bytes = product.stride * 4;
  const int passes = 2 * ((product.row_tiles + 1) / 2);
  const int lines = (64 + passes - 1) / passes;
  Ahead ahead{b + product.steps * kStepBytes, lines <= 8 ? lines : 8};
  for (int half = 0; half < 2; ++half, b += 2 * kColumnBytes, y += 2 * kColumnBytes) {
    const char* x = bytes(product.x);
    char* to = y;
    int row = 0;
    for (; row + 2 <= product.row_tiles; row += 2, x += 2 * row_tile, to += 2 * kTileRows * row_bytes)
      multiply<kIntegers, 2>(x, b, product.steps, to, product.stride, ahead);
    if (row < product.row_tiles) multiply<kIntegers, 1>(x, b, product.steps, to, product.stride, ahead);
  }
}

}  // namespace

void multiply_tiles(const TileProduct& product) {
  const TileSession session;
  for (int panel = 0; panel < product.panels; ++panel) {
    const char* b = bytes(product.b) + panel * product.steps * kStepBytes;
    char* y = static_cast<char*>(product.y) + panel * 4 * kColumnBytes;
    if (product.dtype == DataType::kInt8)
      multiply_panel<true>(product, b, y);
    else
      multiply_panel<false>(product, b, y);
  }
}

}  // namespace exp3rt
