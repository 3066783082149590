#pragma once

#include <algorithm>

#include "core/types.h"
#include "ops/vector_kernels.h"

namespace exp3rt {

// Writes n fp32 values as `dtype`.
inline void store(DataType dtype, const float* from, std::int64_t n, void* to) {
  if (dtype == DataType::kFloat32) {
    std::copy_n(from, n, static_cast<float*>(to));
  } else {
    vector_kernels().to_bfloat16(from, n, static_cast<bfloat16*>(to));
  }
}

// Writes n fp32 values as two bf16 numbers each: the value, and what its rounding lost.
inline void store_split(const float* from, std::int64_t n, void* value, void* rest) {
  vector_kernels().split_bfloat16(from, n, static_cast<bfloat16*>(value), static_cast<bfloat16*>(rest));
}

// Reads n values of `dtype` as fp32.
inline void load(DataType dtype, const void* from, std::int64_t n, float* to) {
  if (dtype == DataType::kFloat32) {
    std::copy_n(static_cast<const float*>(from), n, to);
  } else {
    vector_kernels().to_float(static_cast<const bfloat16*>(from), n, to);
  }
}

}  // namespace exp3rt
