#include "ops/item_format.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "ops/bfloat16.h"
#include "ops/packed_matrix.h"
#include "ops/vector_kernels.h"

namespace exp3rt {
namespace {

std::size_t z(std::int64_t n) { return static_cast<std::size_t>(n); }

float widened(float x) { return x; }
float widened(bfloat16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x) << 16); }

constexpr DataType type_of(const float*) { return DataType::kFloat32; }
constexpr DataType type_of(const bfloat16*) { return DataType::kBFloat16; }

// `count` numbers, the i-th of which is read(i), in steps of 1/127 of the largest: to(i) takes it. Returns the step; NaN
// if one of them is not finite, so that whoever reads them notices.
template <typename Read, typename Write>
float quantize(int count, const Read& read, const Write& to) {
  float largest = 0;
  for (int i = 0; i < count; ++i) {
    if (!std::isfinite(read(i))) return std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, std::abs(read(i)));
  }
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
  for (int i = 0; i < count; ++i) to(i) = static_cast<std::int8_t>(std::lrint(read(i) * inverse));
  return largest / 127.0f;
}

}  // namespace

ItemFormat::ItemFormat(AttentionShape shape, int num_layers, DataType dtype)
    : shape_(shape), num_layers_(num_layers), dtype_(dtype) {}

std::string ItemFormat::name() const {
  const auto text = [](DataType dtype) {
    return dtype == DataType::kFloat32 ? "fp32" : dtype == DataType::kBFloat16 ? "bf16" : "int8";
  };
  return std::string(text(dtype_)) + " packed for " + text(shape_.dtype) + ", " + std::to_string(num_layers_) +
         " layers of " + std::to_string(shape_.num_kv_heads) + " x " + std::to_string(shape_.head_dim);
}

std::size_t ItemFormat::value_elements() const { return z(round_up(shape_.head_dim, kPanelColumns)) * z(kBlockTokens); }

std::size_t ItemFormat::head_bytes() const {
  const std::size_t elements = key_elements() + value_elements();
  const std::size_t scales = dtype_ == DataType::kInt8 ? z(shape_.head_dim + kBlockTokens) * sizeof(float) : 0;
  return z(round_up(static_cast<std::int64_t>(elements * size_of(dtype_) + scales), AlignedBuffer::kAlignment));
}

std::size_t ItemFormat::num_bytes(int num_tokens) const { return offset(num_tokens, num_layers_, 0, 0); }

std::size_t ItemFormat::offset(int num_tokens, int layer, int block, int kv_head) const {
  const std::int64_t blocks = ceil_div(num_tokens, kBlockTokens);
  return z((layer * blocks + block) * shape_.num_kv_heads + kv_head) * head_bytes();
}

ItemFormat::Block ItemFormat::block(const ItemKv& item, int layer, int block, int kv_head,
                                    AlignedBuffer& scratch) const {
  const std::byte* at = memory(item, layer, block, kv_head).data();
  const std::size_t element = size_of(shape_.dtype);
  if (dtype_ != DataType::kInt8) return {at, at + key_elements() * element};
  const auto* integers = reinterpret_cast<const std::int8_t*>(at);
  const auto* scales = reinterpret_cast<const float*>(at + key_elements() + value_elements());
  auto* keys = scratch.get<std::byte>((key_elements() + value_elements()) * element);
  std::byte* values = keys + key_elements() * element;
  const VectorKernels& kernels = vector_kernels();
  kernels.widen_int8(shape_.dtype, integers, scales, shape_.head_dim, keys);
  const std::size_t panel = z(kBlockTokens * kPanelColumns);
  for (std::size_t i = 0; i < value_elements(); i += panel) {
    kernels.widen_int8(shape_.dtype, integers + key_elements() + i, scales + shape_.head_dim, kBlockTokens,
                       values + i * element);
  }
  return {keys, values};
}

void ItemFormat::store(const KvLayer& kv, std::span<const BlockId> blocks, int num_tokens, std::byte* item) const {
  for (int block = 0; block * kBlockTokens < num_tokens; ++block) {
    const int count = std::min(num_tokens - block * kBlockTokens, kBlockTokens);
    const BlockId from = blocks[z(block)];
    for (int head = 0; head < shape_.num_kv_heads; ++head) {
      const std::byte *keys = kv.keys(from, head), *values = kv.values(from, head);
      std::byte* to = item + offset(num_tokens, kv.index, block, head);
      if (shape_.dtype == DataType::kFloat32) {
        store_head(reinterpret_cast<const float*>(keys), reinterpret_cast<const float*>(values), count, to);
      } else {
        store_head(reinterpret_cast<const bfloat16*>(keys), reinterpret_cast<const bfloat16*>(values), count, to);
      }
    }
  }
}

// The first num_tokens of one block of one head. A channel of a key is read with what its rounding lost, where that is
// kept; values of tokens behind the last are zero there already (KvStorage::refresh).
template <typename T>
void ItemFormat::store_head(const T* keys, const T* values, int num_tokens, std::byte* to) const {
  constexpr DataType kType = type_of(static_cast<const T*>(nullptr));
  const int dim = shape_.head_dim;
  const auto key_at = [](int channel, int token) { return z(offset_in_panel(kType, channel, token)); };
  const auto value_at = [](int channel, int token) {
    const std::int64_t panel = channel / kPanelColumns * panel_size(kType, kBlockTokens);
    return z(panel + offset_in_panel(kType, token, channel % kPanelColumns));
  };
  std::memset(to, 0, head_bytes());
  if (dtype_ != DataType::kInt8) {
    auto* kept = reinterpret_cast<T*>(to);
    for (int d = 0; d < dim; ++d) {
      for (int t = 0; t < num_tokens; ++t) kept[key_at(d, t)] = keys[key_at(d, t)];
    }
    std::memcpy(kept + key_elements(), values, value_elements() * sizeof(T));
    return;
  }
  auto* integers = reinterpret_cast<std::int8_t*>(to);
  auto* scales = reinterpret_cast<float*>(to + key_elements() + value_elements());
  const bool split = shape_.key_dim() > dim;
  for (int d = 0; d < dim; ++d) {
    const auto read = [&](int t) {
      return widened(keys[key_at(d, t)]) + (split ? widened(keys[key_at(dim + d, t)]) : 0.0f);
    };
    scales[d] = quantize(num_tokens, read, [&](int t) -> std::int8_t& { return integers[key_at(d, t)]; });
  }
  for (int t = 0; t < num_tokens; ++t) {
    scales[dim + t] = quantize(
        dim, [&](int d) { return widened(values[value_at(d, t)]); },
        [&](int d) -> std::int8_t& { return integers[key_elements() + value_at(d, t)]; });
  }
}

}  // namespace exp3rt
