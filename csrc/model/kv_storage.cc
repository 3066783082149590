#include "model/kv_storage.h"

#include <sys/mman.h>

#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

namespace exp3rt {

KvStorage::KvStorage(const ModelConfig& config, DataType dtype, std::size_t max_bytes)
    : shape_{config.num_heads, config.num_kv_heads, config.head_dim, dtype}, num_layers_(config.num_layers) {
  const KvLayer one{shape_, nullptr, 0};
  block_stride_ = (one.key_bytes() + one.value_bytes()) * static_cast<std::size_t>(config.num_kv_heads);
  const std::size_t block_bytes = block_stride_ * static_cast<std::size_t>(num_layers_);
  num_blocks_ = static_cast<int>(max_bytes / block_bytes);
  if (num_blocks_ < 1) {
    throw std::invalid_argument("the KV cache's " + std::to_string(max_bytes) +
                                " bytes are too few: one block of this model needs " + std::to_string(block_bytes));
  }
  size_ = static_cast<std::size_t>(num_blocks_) * block_bytes;
  void* mapped = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<std::byte*>(mapped);
}

KvStorage::~KvStorage() { ::munmap(data_, size_); }

void KvStorage::make_room(int num_passing_blocks) {
  passing_ = passing_buffer_.get<std::byte>(block_stride_ * static_cast<std::size_t>(num_passing_blocks));
}

KvLayer KvStorage::layer(int index) const {
  const std::size_t layer_bytes = block_stride_ * static_cast<std::size_t>(num_blocks_);
  return {shape_, data_ + static_cast<std::size_t>(index) * layer_bytes, block_stride_, index, passing_};
}

void KvStorage::refresh(BlockId block) const {
  const int num_layers = block >= 0 ? num_layers_ : 1;
  for (int l = 0; l < num_layers; ++l) clear_values(layer(l), block);
}

void KvStorage::clear_values(const KvLayer& kv, BlockId block) const {
  for (int head = 0; head < shape_.num_kv_heads; ++head) std::memset(kv.values(block, head), 0, kv.value_bytes());
}

}  // namespace exp3rt
