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

// Reads n values of `dtype` as fp32.
inline void load(DataType dtype, const void* from, std::int64_t n, float* to) {
  if (dtype == DataType::kFloat32) {
    std::copy_n(static_cast<const float*>(from), n, to);
  } else {
    vector_kernels().to_float(static_cast<const bfloat16*>(from), n, to);
  }
}

}  // namespace exp3rt
