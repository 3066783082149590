#include "ops/kv_layer.h"

#include <algorithm>
#include <cstring>

#include "ops/aligned_buffer.h"
#include "ops/packed_matrix.h"
#include "ops/store.h"
#include "ops/vector_kernels.h"

namespace exp3rt {
namespace {

// Where a token's key and value go in packed operands: columns of Kᵀ, whose rows are the dimensions, and a row of V.
void scatter(const float* key, const float* value, int dim, int slot, float* keys, float* values) {
  for (int d = 0; d < dim; ++d) {
    keys[offset_in_panel(DataType::kFloat32, d, slot)] = key[d];
    values[d / kPanelColumns * panel_size(DataType::kFloat32, kBlockTokens) +
           offset_in_panel(DataType::kFloat32, slot, d % kPanelColumns)] = value[d];
  }
}

// The same in bf16, where two dimensions of a key lie side by side; what rounding the key lost follows as more rows.
void scatter(const float* key, const float* value, int dim, int slot, bfloat16* keys, bfloat16* values) {
  thread_local AlignedBuffer buffer;
  const auto size = static_cast<std::size_t>(dim);
  auto* rounded = buffer.get<bfloat16>(3 * size);
  vector_kernels().split_bfloat16(key, dim, rounded, rounded + size);
  vector_kernels().to_bfloat16(value, dim, rounded + 2 * size);
  for (int d = 0; d < 2 * dim; d += 2) {
    std::memcpy(keys + offset_in_panel(DataType::kBFloat16, d, slot), rounded + d, 2 * sizeof(bfloat16));
  }
  for (int d = 0; d < dim; ++d) {
    values[d / kPanelColumns * panel_size(DataType::kBFloat16, kBlockTokens) +
           offset_in_panel(DataType::kBFloat16, slot, d % kPanelColumns)] =
        rounded[2 * size + static_cast<std::size_t>(d)];
  }
}

}  // namespace

std::size_t KvLayer::key_bytes() const {
  return static_cast<std::size_t>(panel_size(shape.dtype, shape.score_dim())) * size_of(shape.dtype);
}

std::size_t KvLayer::value_bytes() const {
  const auto panels = ceil_div(shape.head_dim, kPanelColumns);
  return static_cast<std::size_t>(panels * panel_size(shape.dtype, kBlockTokens)) * size_of(shape.dtype);
}

std::byte* KvLayer::keys(BlockId block, int kv_head) const {
  const std::size_t head_stride = key_bytes() + value_bytes();
  return data + static_cast<std::size_t>(block) * block_stride + static_cast<std::size_t>(kv_head) * head_stride;
}

void KvLayer::store(BlockId block, int slot, int kv_head, const float* key, const float* value) const {
  const auto scatter_as = [&]<typename T>(T* to_keys) {
    scatter(key, value, shape.head_dim, slot, to_keys, reinterpret_cast<T*>(values(block, kv_head)));
  };
  if (shape.dtype == DataType::kFloat32) {
    scatter_as(reinterpret_cast<float*>(keys(block, kv_head)));
  } else {
    scatter_as(reinterpret_cast<bfloat16*>(keys(block, kv_head)));
  }
}

void AttentionShape::store_query(const float* query, std::byte* out) const {
  const std::size_t bytes = static_cast<std::size_t>(head_dim) * size_of(dtype);
  exp3rt::store(dtype, query, head_dim, out);
  if (score_dim() > head_dim) std::copy_n(out, bytes, out + bytes);
}

}  // namespace exp3rt
