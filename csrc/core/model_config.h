#pragma once

#include <stdexcept>
#include <string>

#include "core/types.h"

namespace exp3rt {

// Dimensions of a Llama-like decoder: RMS norm, rotary positions, grouped-query attention, SwiGLU.
struct ModelConfig {
  int vocab_size = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  float rms_norm_eps = 0;
  int max_context = 0;                  // tokens
  DataType dtype = DataType::kFloat32;  // of the layers' matrices

  // Of the embedding, the output matrix, keys and values: these are not kept in int8.
  DataType table_dtype() const { return dtype == DataType::kInt8 ? DataType::kBFloat16 : dtype; }
  int qkv_size() const { return (num_heads + 2 * num_kv_heads) * head_dim; }
  int attention_size() const { return num_heads * head_dim; }
};

// Throws std::invalid_argument, naming the field.
inline void check(const ModelConfig& config) {
  const auto require = [](bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(std::string("model config: ") + what);
  };
  require(config.vocab_size > 0, "vocab_size must be positive");
  require(config.hidden_size > 0, "hidden_size must be positive");
  require(config.intermediate_size > 0, "intermediate_size must be positive");
  require(config.num_layers > 0, "num_layers must be positive");
  require(config.num_heads > 0, "num_heads must be positive");
  require(config.num_kv_heads > 0 && config.num_heads % config.num_kv_heads == 0, "num_kv_heads must divide num_heads");
  require(config.num_heads / config.num_kv_heads <= 64, "more than 64 query heads for a key head");
  require(config.head_dim > 0 && config.head_dim % 2 == 0, "head_dim must be positive and even");
  require(config.max_context > 0, "max_context must be positive");
}

}  // namespace exp3rt
