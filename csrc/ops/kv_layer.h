#pragma once

#include <cstddef>

#include "core/types.h"

namespace exp3rt {

struct AttentionShape {
  int num_heads;
  int num_kv_heads;
  int head_dim;
  DataType dtype;  // of queries, keys and values

  int group() const { return num_heads / num_kv_heads; }  // query heads that share a key head
  // Length of a key as it is stored. In bf16 a key is kept as its rounded value and what the rounding lost, one after
  // the other, and a query meets both: keys have a few large channels, and rounding them was the largest single part of
  // a bf16 engine's error (docs/accuracy.md). A reasoning's tokens meet the first half of their own sequence's keys.
  int key_dim() const { return dtype == DataType::kBFloat16 ? 2 * head_dim : head_dim; }
};

// The keys and values of one layer. For each block and key head: Kᵀ [key_dim, kBlockTokens] and V [kBlockTokens,
// head_dim], both packed, so that each is an operand of a product as it lies.
struct KvLayer {
  AttentionShape shape;
  std::byte* data;
  std::size_t block_stride;      // bytes
  int index = 0;                 // of the layer
  std::byte* passing = nullptr;  // memory of passing blocks

  std::size_t key_bytes() const;
  std::size_t value_bytes() const;
  std::byte* keys(BlockId block, int kv_head) const;
  std::byte* values(BlockId block, int kv_head) const { return keys(block, kv_head) + key_bytes(); }
  // key, value: [head_dim] fp32, stored as token `slot` of the block. Threads may store other tokens at once.
  void store_key(BlockId block, int slot, int kv_head, const float* key) const;
  void store_value(BlockId block, int slot, int kv_head, const float* value) const;
};

}  // namespace exp3rt
