// What the sources of AMX share. Local to the file that includes it: such code must not be linked into others.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "ops/tiles.h"

namespace exp3rt {
namespace {

// Sets the tiles up on this thread while it lives: 0 to 3 hold sums, 4 and 5 rows of x, 6 and 7 columns of B.
class TileSession {
 public:
  TileSession() { set_rows(kTileRows, kTileRows); }
  ~TileSession() { _tile_release(); }
  TileSession(const TileSession&) = delete;
  TileSession& operator=(const TileSession&) = delete;

  // How many rows x has: in tile 4, and the sums 0 and 1; in tile 5, and the sums 2 and 3.
  void set_rows(int upper, int lower) {
    if (upper == upper_ && lower == lower_) return;
    upper_ = upper;
    lower_ = lower;
    alignas(64) Config config = {};
    config.palette = 1;
    const int rows[] = {upper, upper, lower, lower, upper, lower, kTileRows, kTileRows};
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = kTileDepth;
      config.rows[i] = static_cast<std::uint8_t>(rows[i]);
    }
    _tile_loadconfig(&config);
  }

 private:
  struct Config {
    std::uint8_t palette, start_row, reserved[14];
    std::uint16_t row_bytes[16];
    std::uint8_t rows[16];
  };
  int upper_ = 0, lower_ = 0;
};

// Bytes between the rows of a tile of B: 64 columns of 4 bytes lie side by side (ops/packed_matrix.h).
constexpr std::int64_t kColumnStride = 256;
constexpr std::int64_t kStepBytes = kTileRows * kColumnStride;  // of B, all 64 columns
constexpr std::int64_t kColumnBytes = 64;                       // from 16 columns to the next 16

inline const char* bytes(const void* at) { return static_cast<const char*>(at); }

}  // namespace
}  // namespace exp3rt
