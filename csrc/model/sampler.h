#pragma once

#include <span>
#include <vector>

#include "core/batch.h"
#include "core/model_config.h"
#include "model/weights.h"
#include "ops/linear.h"

namespace exp3rt {

// From hidden states to what a step has to produce. Label logits meet only the labels' rows of the output matrix;
// greedy tokens meet all of it, a slice of the vocabulary at a time, so that no logits are kept.
class Sampler {
 public:
  Sampler(Weights& weights, const ModelConfig& config, int num_threads);

  // hidden: [outputs.size(), hidden_size]
  std::vector<OutputValue> sample(std::span<const OutputRequest> outputs, const float* hidden);

 private:
  std::vector<float> label_logits(const float* hidden, std::span<const TokenId> labels) const;
  std::vector<TokenId> greedy(const std::vector<const float*>& rows) const;

  int hidden_size_;
  int num_threads_;
  PackedMatrix lm_head_;  // [vocab, hidden]
};

}  // namespace exp3rt
