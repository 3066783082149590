#pragma once

#include <vector>

#include "core/types.h"

namespace exp3rt {

// Hands out KV blocks by number. Last freed, first reused, so that the memory behind them stays warm and small.
// Not thread-safe: owned by the executor's thread. Outlives its blocks.
class BlockPool {
 public:
  // Sole owner of one block; returns it when destroyed.
  class Block {
   public:
    Block() = default;
    Block(Block&& other) noexcept;
    Block& operator=(Block&& other) noexcept;
    ~Block();
    BlockId id() const { return id_; }

   private:
    friend class BlockPool;
    Block(BlockPool* pool, BlockId id) : pool_(pool), id_(id) {}
    BlockPool* pool_ = nullptr;
    BlockId id_ = -1;
  };

  explicit BlockPool(int num_blocks);
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  Block allocate();  // throws std::bad_alloc when none is free
  int num_free() const { return static_cast<int>(free_.size()); }
  int num_total() const { return num_total_; }

 private:
  int num_total_;
  std::vector<BlockId> free_;
};

}  // namespace exp3rt
