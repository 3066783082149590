#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "core/item_kv.h"
#include "ops/aligned_buffer.h"
#include "ops/kv_layer.h"

namespace exp3rt {

// How the keys and values of an item segment are kept: smaller than those of a running sequence, contiguous, and the same
// whether they were just computed or lie in a catalogue's file.
//
// [layer][block][key head]: Kᵀ [head_dim, kBlockTokens], then V [kBlockTokens, head_dim], packed like operands of the
// attention's products. A bf16 engine keeps keys rounded once, without what the rounding lost. int8 keeps integers in
// that order, then their fp32 scales: of keys by channel, whose sizes differ most, of values by token (KIVI, arXiv
// 2402.02750). What lies behind the last token is zero.
class ItemFormat {
 public:
  struct Block {
    const void* keys;
    const void* values;
  };

  // dtype: shape.dtype, or kInt8.
  ItemFormat(AttentionShape shape, int num_layers, DataType dtype);

  // Tells apart whatever cannot be read as one another.
  std::string name() const;
  std::size_t num_bytes(int num_tokens) const;
  int num_layers() const { return num_layers_; }

  // Where a block's keys and values lie, one behind the other.
  std::span<const std::byte> memory(const ItemKv& item, int layer, int block, int kv_head) const {
    return {item.data.get() + offset(item.num_tokens, layer, block, kv_head), head_bytes()};
  }
  // A block as the attention's kernels want it: where it lies, or widened in the scratch memory.
  Block block(const ItemKv& item, int layer, int block, int kv_head, AlignedBuffer& scratch) const;
  // Copies one layer of a sequence of num_tokens to an item's memory.
  void store(const KvLayer& kv, std::span<const BlockId> blocks, int num_tokens, std::byte* item) const;

 private:
  std::size_t key_elements() const { return static_cast<std::size_t>(shape_.head_dim) * kBlockTokens; }
  std::size_t value_elements() const;
  std::size_t head_bytes() const;  // of one block
  std::size_t offset(int num_tokens, int layer, int block, int kv_head) const;
  template <typename T>
  void store_head(const T* keys, const T* values, int num_tokens, std::byte* to) const;

  AttentionShape shape_;
  int num_layers_;
  DataType dtype_;
};

}  // namespace exp3rt
