#pragma once

#include <span>
#include <utility>
#include <vector>

#include "core/batch.h"
#include "ops/attention_kernels.h"
#include "ops/item_format.h"
#include "ops/kv_layer.h"
#include "ops/matmul.h"
#include "ops/tiles.h"

namespace exp3rt {

// Rows of a batch that share a context: the unit of work, for one key head.
struct AttentionTile {
  int first_row;
  int num_rows;
  std::span<const BatchSlice> slices;  // that these rows belong to
};

// Grouped-query attention over KV blocks.
//
// A tile's queries meet the blocks of the shared context together, whichever sequences they belong to; then each sequence's
// rows meet its item, if it has one, and its own blocks, causally. The parts are merged by their log-sum-exp as they come
// (streaming softmax: Milakov and Gimelshein, arXiv 1805.02867; tiled as in FlashAttention, arXiv 2205.14135). Every row
// sees its keys by the same few blocks in the same order whatever else is in the batch, so its result does not depend on
// it.
class Attention {
 public:
  // by_tiles: whether rows meet blocks on AMX (ops/tile_attention.cc) and not by vectors.
  Attention(AttentionShape shape, ItemFormat items, bool by_tiles);
  Attention(AttentionShape shape, ItemFormat items) : Attention(shape, std::move(items), has_tiles(shape)) {}
  static bool has_tiles(AttentionShape shape) { return takes_tiles(shape.dtype) && shape.head_dim % 32 == 0; }

  // As few as keep the queries of a tile in the cache, but several for each thread.
  std::vector<AttentionTile> tiles(const Batch& batch, int num_threads) const;

  // queries: [num_kv_heads][query_rows][head_dim], row r of the batch at query rows r * group ..., scaled already
  // (by log2(e) / sqrt(head_dim): the softmax counts in powers of two).
  // out: [rows, num_heads * head_dim] fp32
  void run(const AttentionTile& tile, int kv_head, const KvLayer& kv, const void* queries, float* out) const;

 private:
  struct State;
  struct Rows {  // query rows of a tile
    int first, count;
  };
  Rows common_rows(const AttentionTile& tile, const BatchSlice& slice) const;
  void attend_context(State& state, const AttentionTile& tile, const KvLayer& kv, int kv_head) const;
  void attend_item(State& state, const AttentionTile& tile, const BatchSlice& slice, int layer, int kv_head) const;
  void attend_own(State& state, const AttentionTile& tile, const BatchSlice& slice, const KvLayer& kv,
                  int kv_head) const;
  TileAhead item_step(const BatchSlice& slice, int layer, int kv_head, int first_block) const;
  void attend(State& state, Rows rows, int key_dim, std::span<const TileBlock> blocks, const int* seen,
              const TileAhead& ahead = {}) const;
  void attend_by_tiles(State& state, Rows rows, int key_dim, std::span<const TileBlock> blocks, const int* seen,
                       const TileAhead& ahead) const;
  void attend_by_vectors(State& state, Rows rows, int key_dim, std::span<const TileBlock> blocks,
                         const int* seen) const;
  void write(const State& state, const AttentionTile& tile, int kv_head, float* out) const;

  std::size_t query_bytes() const { return static_cast<std::size_t>(shape_.head_dim) * size_of(shape_.dtype); }
  int value_panels() const { return static_cast<int>(ceil_div(shape_.head_dim, kPanelColumns)); }
  std::size_t sum_width() const { return static_cast<std::size_t>(round_up(shape_.head_dim, kPanelColumns)); }

  AttentionShape shape_;
  bool by_tiles_;
  AttentionKernel kernel_;
  ItemFormat items_;
};

}  // namespace exp3rt
