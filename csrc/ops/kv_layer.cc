#include "ops/kv_layer.h"

#include <algorithm>
#include <cstring>

#include "ops/aligned_buffer.h"
#include "ops/packed_matrix.h"
#include "ops/store.h"
#include "ops/vector_kernels.h"

namespace exp3rt {
namespace {

// A token's key is a column of Kᵀ, whose rows are the dimensions. In bf16 two dimensions lie side by side, and what
// rounding lost follows as more rows.
void scatter_key(const float* key, int dim, int slot, float* keys) {
  for (int d = 0; d < dim; ++d) keys[offset_in_panel(DataType::kFloat32, d, slot)] = key[d];
}

void scatter_key(const float* key, int dim, int slot, bfloat16* keys) {
  thread_local AlignedBuffer buffer;
  const auto size = static_cast<std::size_t>(dim);
  auto* rounded = buffer.get<bfloat16>(2 * size);
  vector_kernels().split_bfloat16(key, dim, rounded, rounded + size);
  for (int d = 0; d < 2 * dim; d += 2) {
    std::memcpy(keys + offset_in_panel(DataType::kBFloat16, d, slot), rounded + d, 2 * sizeof(bfloat16));
  }
}

}  // namespace

std::size_t KvLayer::key_bytes() const {
  return static_cast<std::size_t>(panel_size(shape.dtype, shape.key_dim())) * size_of(shape.dtype);
}

std::size_t KvLayer::value_bytes() const {
  const auto panels = ceil_div(shape.head_dim, kPanelColumns);
  return static_cast<std::size_t>(panels * panel_size(shape.dtype, kBlockTokens)) * size_of(shape.dtype);
}

std::byte* KvLayer::keys(BlockId block, int kv_head) const {
  const std::size_t head_stride = key_bytes() + value_bytes();
  std::byte* at = block >= 0 ? data + static_cast<std::size_t>(block) * block_stride
                             : passing + static_cast<std::size_t>(passing_index(block)) * block_stride;
  return at + static_cast<std::size_t>(kv_head) * head_stride;
}

void KvLayer::store_key(BlockId block, int slot, int kv_head, const float* key) const {
  if (shape.dtype == DataType::kFloat32) {
    scatter_key(key, shape.head_dim, slot, reinterpret_cast<float*>(keys(block, kv_head)));
  } else {
    scatter_key(key, shape.head_dim, slot, reinterpret_cast<bfloat16*>(keys(block, kv_head)));
  }
}

// A token's value is a row of V, panel by panel. In bf16 two tokens lie side by side, number by number.
void KvLayer::store_value(BlockId block, int slot, int kv_head, const float* value) const {
  std::byte* to = values(block, kv_head);
  const auto panel_bytes = static_cast<std::size_t>(panel_size(shape.dtype, kBlockTokens)) * size_of(shape.dtype);
  for (std::int64_t d = 0; d < shape.head_dim; d += kPanelColumns, to += panel_bytes) {
    const std::int64_t count = std::min<std::int64_t>(kPanelColumns, shape.head_dim - d);
    const auto at = static_cast<std::size_t>(offset_in_panel(shape.dtype, slot, 0));
    if (shape.dtype == DataType::kFloat32) {
      std::copy_n(value + d, count, reinterpret_cast<float*>(to) + at);
    } else {
      vector_kernels().to_every_other(value + d, count, reinterpret_cast<bfloat16*>(to) + at);
    }
  }
}

}  // namespace exp3rt
