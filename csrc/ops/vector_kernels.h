#pragma once

#include <cstdint>

#include "core/types.h"
#include "ops/bfloat16.h"

namespace exp3rt {

// Row-wise fp32 kernels. vector_kernels.cc is compiled once for each instruction set, and this is its table.
// A row's result depends on that row alone.
struct VectorKernels {
  // out[i] = x[i] / rms(x) * weight[i]
  void (*rms_norm)(const float* x, const float* weight, float epsilon, std::int64_t n, float* out);
  // Rotates (x[i], x[i + half]) by the angle whose cosine and sine are given; in place. HF's "rotate half" convention.
  void (*rotate)(float* x, const float* cosine, const float* sine, std::int64_t half);
  // gate[i] = silu(gate[i]) * up[i]
  void (*swiglu)(float* gate, const float* up, std::int64_t n);
  // The same to a row of tiles, as to_tiles rounds it.
  void (*swiglu_to_tiles)(const float* gate, const float* up, std::int64_t n, bfloat16* out);
  // x = factor * x + y
  void (*scale_add)(float* x, float factor, const float* y, std::int64_t n);
  // out = factor * x
  void (*scale)(const float* x, float factor, std::int64_t n, float* out);
  float (*dot)(const float* x, const float* y, std::int64_t n);
  void (*to_bfloat16)(const float* x, std::int64_t n, bfloat16* out);
  // The same to out[0], out[2], ...; what lies between is not touched, nor read.
  void (*to_every_other)(const float* x, std::int64_t n, bfloat16* out);
  // The same to a row of tiles (ops/tiles.h): 32 numbers in each; what is left of the last is zeroed.
  void (*to_tiles)(const float* x, std::int64_t n, bfloat16* out);
  // value + rest is x to about 16 bits
  void (*split_bfloat16)(const float* x, std::int64_t n, bfloat16* value, bfloat16* rest);
  void (*to_float)(const bfloat16* x, std::int64_t n, float* out);
  // x = x H, H the Walsh-Hadamard matrix on each whole block of `block` numbers: a power of two, at least 16
  void (*hadamard)(float* x, std::int64_t n, std::int64_t block);
  // x[i] is about scale * (out[i] - 128), scale = max |x| / 127; returns it (NaN if any x is)
  float (*quantize)(const float* x, std::int64_t n, std::uint8_t* out);
  // x[i] is about scale * ((value[i] - 128) + (rest[i] - 128) / 254)
  float (*quantize_split)(const float* x, std::int64_t n, std::uint8_t* value, std::uint8_t* rest);
  // y[i] = row_scale * scale[i] * (sums[i] - offset[i]), for a row of a product in int8; y may be
  // where the sums (int32) are
  void (*dequantize)(const void* sums, const std::int32_t* offset, const float* scale, float row_scale, std::int64_t n,
                     float* y);
  // out[r, c] = scale[r] * x[r, c], [rows, kPanelColumns] in the order that packed operands of `dtype` have
  void (*widen_int8)(DataType dtype, const std::int8_t* x, const float* scale, int rows, void* out);
};

const VectorKernels& vector_kernels();  // the best for cpu_isa()

}  // namespace exp3rt
