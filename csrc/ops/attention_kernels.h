#pragma once

#include "core/types.h"

namespace exp3rt {

// Query rows meet one KV block, in the type that both are stored in.
struct AttentionRows {
  int count;
  int query_dim;        // even
  int key_dim;          // the same, or twice that: then a query meets both halves of a key
  int value_panels;     // of 64 columns
  const void* queries;  // [count, query_dim]
  const void* keys;     // packed [key_dim, kBlockTokens] (ops/packed_matrix.h)
  const void* values;   // packed [kBlockTokens, value_panels * 64]
  const void* next;     // what will be read after the block, which is asked for ahead; null: not known
  const int* valid;     // [count] how many of the first keys each row may see, at least 1
  // The streaming softmax, brought up to date:
  float* max;     // [count] of the scores
  float* weight;  // [count] sum of 2^(score - max)
  float* sum;     // [count, value_panels * 64] sum of 2^(score - max) value
};

using AttentionKernel = void (*)(const AttentionRows& rows);

// The best for cpu_isa(). A row's result does not depend on the rows beside it.
AttentionKernel attention_kernel(DataType dtype);

}  // namespace exp3rt
