#pragma once

#include <span>

#include "core/batch.h"
#include "core/model_config.h"
#include "ops/aligned_buffer.h"
#include "ops/kv_layer.h"

namespace exp3rt {

// The memory behind the KV blocks, for all layers. Reserved as a whole, taken from the system as blocks are used.
class KvStorage {
 public:
  // As many blocks as fit; throws std::invalid_argument if not one does.
  KvStorage(const ModelConfig& config, DataType dtype, std::size_t max_bytes);
  ~KvStorage();
  KvStorage(const KvStorage&) = delete;
  KvStorage& operator=(const KvStorage&) = delete;

  int num_blocks() const { return num_blocks_; }
  // Makes room for so many passing blocks beside them, of sequences that hold as many of them: one num_layers-th of the memory at
  // most. Layers from before may lie elsewhere then.
  void make_room(int num_passing_blocks);
  KvLayer layer(int index) const;
  // Zeroes the values of a block that changed hands: weights of 0 must meet numbers, whatever was there before.
  void refresh(BlockId block) const;

 private:
  void clear_values(const KvLayer& kv, BlockId block) const;

  AttentionShape shape_;
  int num_layers_;
  int num_blocks_;
  std::size_t block_stride_;  // bytes of a block in one layer
  std::size_t size_;
  std::byte* data_;
  AlignedBuffer passing_buffer_;
  std::byte* passing_ = nullptr;
};

}  // namespace exp3rt
