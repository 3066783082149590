#pragma once

#include <span>
#include <vector>

#include "core/batch.h"
#include "ops/attention_kernels.h"
#include "ops/isa.h"
#include "ops/item_format.h"
#include "ops/kv_layer.h"
#include "ops/matmul.h"

namespace exp3rt {

// Rows of a batch that share a context: the unit of work, for one key head.
struct AttentionTile {
  int first_row;
  int num_rows;
  std::span<const BatchSlice> slices;  // that these rows belong to
};

// Grouped-query attention over KV blocks.
//
// A tile's queries meet each block of the shared context in one product, whichever sequences they belong to; then each
// sequence's rows meet its item, if it has one, and its own blocks, causally. The parts are merged by their log-sum-exp as they come (streaming
// softmax: Milakov and Gimelshein, arXiv 1805.02867; tiled as in FlashAttention, arXiv 2205.14135). Every row sees its
// keys block by block in the same order whatever else is in the batch, so its result does not depend on it.
class Attention {
 public:
  // by_products: whether many rows meet a block by products of the library, which have AMX, and not by our kernels.
  // Items meet our kernels: their keys are shorter than queries in bf16, and few rows meet each.
  explicit Attention(AttentionShape shape, ItemFormat items, bool by_products = cpu_isa() >= Isa::kAmx);

  // As few as keep the queries of a tile in the cache, but several for each thread.
  std::vector<AttentionTile> tiles(const Batch& batch, int num_threads) const;

  // queries: [num_kv_heads][query_rows][score_dim], row r of the batch at query rows r * group ..., scaled already
  // (by log2(e) / sqrt(head_dim): the softmax counts in powers of two);
  // readable for kMaxRows more rows. out: [rows, num_heads * head_dim] fp32.
  void run(const AttentionTile& tile, int kv_head, const KvLayer& kv, const void* queries, float* out) const;

 private:
  struct State;
  void attend_item(State& state, const AttentionTile& tile, const BatchSlice& slice, int layer, int kv_head) const;
  void attend_own(State& state, const AttentionTile& tile, const BatchSlice& slice, const KvLayer& kv,
                  int kv_head) const;
  void attend(State& state, int first, int count, const KvLayer& kv, BlockId block, int kv_head,
              std::span<const int> valid, bool by_products) const;
  void attend_by_products(State& state, int first, int count, const std::byte* keys, const std::byte* values,
                          std::span<const int> valid) const;
  void attend_by_kernel(State& state, int first, int count, int score_dim, const void* keys, const void* values,
                        std::span<const int> valid) const;
  void write(const State& state, const AttentionTile& tile, int kv_head, float* out) const;

  std::size_t query_bytes() const { return static_cast<std::size_t>(shape_.score_dim()) * size_of(shape_.dtype); }
  std::size_t sum_width() const { return static_cast<std::size_t>(round_up(shape_.head_dim, kPanelColumns)); }

  AttentionShape shape_;
  bool by_products_;
  AttentionKernel kernel_;
  ItemFormat items_;
};

}  // namespace exp3rt
