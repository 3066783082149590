#include "kvcache/block_pool.h"

#include <new>
#include <utility>

namespace exp3rt {

BlockPool::Block::Block(Block&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)), id_(std::exchange(other.id_, -1)) {}

BlockPool::Block& BlockPool::Block::operator=(Block&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(id_, other.id_);
  return *this;
}

BlockPool::Block::~Block() {
  if (pool_) pool_->free_.push_back(id_);
}

BlockPool::BlockPool(int num_blocks) : num_total_(num_blocks) {
  free_.reserve(static_cast<std::size_t>(num_blocks));
  for (BlockId id = num_blocks - 1; id >= 0; --id) free_.push_back(id);
}

BlockPool::Block BlockPool::allocate() {
  if (free_.empty()) throw std::bad_alloc();
  const BlockId id = free_.back();
  free_.pop_back();
  return Block(this, id);
}

}  // namespace exp3rt
