#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/request.h"

namespace exp3rt {

// A block and how many of its first tokens are to be attended.
struct KeyBlock {
  BlockId block;
  int num_tokens;
};

// Consecutive tokens of one sequence inside a batch. Its rows attend to the whole context, and causally to the
// sequence's own tokens. Neighbouring slices with the same context (same span) are attended together.
struct BatchSlice {
  int first_row;
  int num_rows;
  int first_own_token;                  // index of the first row among the sequence's own tokens
  std::span<const KeyBlock> context;    // shared, computed in this batch or before
  std::span<const BlockId> own_blocks;  // own token t lies in own_blocks[t / kBlockTokens]
  const ItemKv* item = nullptr;         // seen behind the context and before the own tokens
  bool writing = false;                 // tokens of a reasoning: they meet rounded keys of their own
};

// The blocks of an item segment that is whole once the batch is computed, and where its keys and values are kept then
// (ops/item_format.h).
struct ItemCopy {
  std::span<const BlockId> blocks;
  int num_tokens;
  std::byte* to;
};

// Where a step must produce something: the label logits, or (no labels) the next greedy token.
struct OutputRequest {
  int row;
  std::span<const TokenId> labels;
};

struct OutputValue {
  TokenId next_token = -1;  // -1: no comparable logit (NaN)
  std::vector<float> label_logits;
};

// One forward pass: ragged, no padding. All keys of a layer are written before any query of it reads, so slices may
// stand in any order, and use a context that the same batch computes.
//
// Some rows are precise: what all of a user's candidates build on (the prefix) and what leads to a label (the last few
// tokens before it). A bf16 engine computes these few with activations of twice the width (docs/accuracy.md).
struct Batch {
  TokenIds tokens;                      // [rows]
  std::vector<std::int32_t> positions;  // [rows]
  std::vector<BatchSlice> slices;
  std::vector<OutputRequest> outputs;  // in order of their rows
  std::vector<int> precise_rows;       // in order
  std::vector<ItemCopy> item_copies;
  std::vector<BlockId> fresh_blocks;  // first written by this batch; their old contents must not be seen
  int num_passing_blocks = 0;         // that its slices have

  // The rows that have outputs, as a batch of their own: all that the last layer's attention and MLP must compute.
  Batch outputs_only() const;

  int num_rows() const { return static_cast<int>(tokens.size()); }
  bool empty() const { return tokens.empty(); }
};

}  // namespace exp3rt
