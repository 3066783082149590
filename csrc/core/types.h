#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace exp3rt {

using TokenId = std::int32_t;
using BlockId = std::int32_t;

// Tokens per KV block. One block of one head is exactly one packed operand of the attention products
// (ops/packed_matrix.h packs 64 columns together), so keys and values are never copied before use.
inline constexpr int kBlockTokens = 64;

// Passing blocks hold keys and values that nobody reads once their batch is computed. They are the same memory for all layers,
// so that it stays in the cache, and have negative numbers.
constexpr BlockId passing_block(int index) { return -1 - index; }
constexpr int passing_index(BlockId block) { return -1 - block; }

enum class DataType { kFloat32, kBFloat16, kInt8 };

constexpr std::size_t size_of(DataType dtype) {
  switch (dtype) {
    case DataType::kFloat32: return 4;
    case DataType::kBFloat16: return 2;
    case DataType::kInt8: return 1;
  }
  return 0;
}

inline DataType parse_data_type(const std::string& name) {
  if (name == "fp32") return DataType::kFloat32;
  if (name == "bf16") return DataType::kBFloat16;
  if (name == "int8") return DataType::kInt8;
  throw std::invalid_argument("unknown dtype '" + name + "'; known: fp32, bf16, int8");
}

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

}  // namespace exp3rt
