#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/types.h"

namespace exp3rt {

// Products on AMX, whose instructions multiply a tile of 16 rows of x with a tile of 16 columns of B, 64 bytes of depth at
// a time. B lies as everywhere (ops/packed_matrix.h); the rows of x lie in tiles, [rows / 16][depth / 64 bytes][16][64
// bytes], so that a tile is one run of memory. A sum is added up in the order of its depth whatever tile it stands in.
inline constexpr int kTileRows = 16;
inline constexpr std::size_t kTileDepth = 64;  // bytes
inline constexpr std::size_t kTileBytes = kTileRows * kTileDepth;

// Tiles that a row of so many bytes goes through.
constexpr std::size_t tile_steps(std::size_t row_bytes) { return (row_bytes + kTileDepth - 1) / kTileDepth; }

// Where byte `at` of row `row` lies, in rows of `steps` tiles.
constexpr std::size_t offset_in_tiles(int row, std::size_t at, std::size_t steps) {
  const auto index = static_cast<std::size_t>(row);
  return (index / kTileRows * steps + at / kTileDepth) * kTileBytes + index % kTileRows * kTileDepth + at % kTileDepth;
}

// Copies bytes [at, at + size) of a row into tiles; both are multiples of kTileDepth, or the rest of the tile is zeroed.
inline void place_in_tiles(const void* from, int row, std::size_t at, std::size_t size, std::size_t steps,
                           void* tiles) {
  const auto* bytes = static_cast<const std::byte*>(from);
  for (std::size_t i = 0; i < size; i += kTileDepth) {
    std::byte* to = static_cast<std::byte*>(tiles) + offset_in_tiles(row, at + i, steps);
    const std::size_t count = std::min(kTileDepth, size - i);
    std::memcpy(to, bytes + i, count);
    if (count < kTileDepth) std::memset(to + count, 0, kTileDepth - count);
  }
}

// Steps of depth that are taken together: 32 columns of them, 36 KB, fill three quarters of the L1 cache.
inline constexpr int kNearTileSteps = 18;

struct TileProduct {
  DataType dtype;  // kBFloat16, or kInt8 with x unsigned
  int row_tiles;
  int steps;
  int panels;
  const void* x;        // [row_tiles][steps] tiles
  const void* b;        // [panels] of 64 columns
  void* y;              // [16 row_tiles, 64 panels] fp32, or int32
  std::int64_t stride;  // of y's rows, in numbers
};
void multiply_tiles(const TileProduct& product);

// A KV block as an operand, and how many of its first tokens count.
struct TileBlock {
  const void* keys;
  const void* values;
  int num_tokens;
};

inline constexpr int kMaxStepBlocks = 4;

// What the next step will read, and is fetched into the L2 cache while this one computes.
struct TileAhead {
  const void* pieces[kMaxStepBlocks];
  int num_pieces = 0;
  int piece_bytes = 0;
};

// Query rows meet a few KV blocks in one step of the streaming softmax, in bf16. See AttentionRows.
struct TileAttention {
  int count;
  int query_dim;  // a multiple of 32
  int key_dim;
  int value_panels;
  const void* queries;
  const TileBlock* blocks;
  int num_blocks;   // 1 ... kMaxStepBlocks
  const int* seen;  // [count] how many slots of the blocks, 64 each, a row may see: none if 0 or less. Null: all
  float* max;
  float* weight;
  float* sum;
  const TileAhead& ahead;
};
void attend_tiles(const TileAttention& rows);

}  // namespace exp3rt
