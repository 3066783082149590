#include "model/sampler.h"

#include <algorithm>
#include <limits>

#include "ops/aligned_buffer.h"
#include "ops/parallel.h"
#include "ops/vector_kernels.h"

namespace exp3rt {
namespace {

constexpr int kRowsAtOnce = 256;           // of hidden states that a slice of the matrix meets
constexpr std::int64_t kSlicePanels = 16;  // of the output matrix: 1,024 tokens of the vocabulary
constexpr std::int64_t kSliceTokens = kSlicePanels * kPanelColumns;

struct Best {
  float logit = -std::numeric_limits<float>::infinity();
  TokenId token = -1;  // the first of equals, as torch.argmax on CPU
};

}  // namespace

Sampler::Sampler(Weights& weights, const ModelConfig& config, int num_threads)
    : hidden_size_(config.hidden_size),
      num_threads_(num_threads),
      lm_head_(weights.matrix("lm_head", config.vocab_size, config.hidden_size, config.table_dtype())) {}

std::vector<OutputValue> Sampler::sample(std::span<const OutputRequest> outputs, const float* hidden) {
  std::vector<OutputValue> values(outputs.size());
  std::vector<const float*> greedy_rows;
  std::vector<OutputValue*> greedy_values;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const float* row = hidden + i * static_cast<std::size_t>(hidden_size_);
    if (outputs[i].labels.empty()) {
      greedy_rows.push_back(row);
      greedy_values.push_back(&values[i]);
    } else {
      values[i].label_logits = label_logits(row, outputs[i].labels);
    }
  }
  const std::vector<TokenId> tokens = greedy(greedy_rows);
  for (std::size_t i = 0; i < tokens.size(); ++i) greedy_values[i]->next_token = tokens[i];
  return values;
}

std::vector<float> Sampler::label_logits(const float* hidden, std::span<const TokenId> labels) const {
  std::vector<float> weight(static_cast<std::size_t>(hidden_size_));
  std::vector<float> logits;
  for (const TokenId label : labels) {
    lm_head_.copy_column(label, weight.data());
    logits.push_back(vector_kernels().dot(hidden, weight.data(), hidden_size_));
  }
  return logits;
}

std::vector<TokenId> Sampler::greedy(const std::vector<const float*>& rows) const {
  const DataType dtype = lm_head_.dtype;
  const auto num_rows = static_cast<std::int64_t>(rows.size());
  const std::int64_t num_slices = ceil_div(lm_head_.n, kSliceTokens);
  AlignedBuffer input_buffer;  // operands of up to kRowsAtOnce rows each
  const std::size_t operand = Activations::num_bytes(dtype, kRowsAtOnce, 0, hidden_size_);
  auto* memory = input_buffer.get<std::byte>(static_cast<std::size_t>(ceil_div(num_rows, kRowsAtOnce)) * operand);
  std::vector<Activations> inputs;
  for (std::int64_t first = 0; first < num_rows; first += kRowsAtOnce) {
    const int count = static_cast<int>(std::min<std::int64_t>(kRowsAtOnce, num_rows - first));
    inputs.emplace_back(dtype, count, 0, hidden_size_, memory + inputs.size() * operand);
    for (int i = 0; i < count; ++i) inputs.back().set(i, rows[static_cast<std::size_t>(first + i)]);
  }

  std::vector<Best> best(static_cast<std::size_t>(num_slices * num_rows));
  parallel_for(num_threads_, num_slices, [&](std::int64_t slice) {
    thread_local AlignedBuffer logits_buffer;
    const Range panels{slice * kSlicePanels, std::min((slice + 1) * kSlicePanels, lm_head_.num_panels())};
    const std::int64_t columns = std::min(kSliceTokens, lm_head_.n - slice * kSliceTokens);
    std::int64_t first = 0;
    for (const Activations& input : inputs) {
      const int count = input.product_rows();
      float* logits = logits_buffer.get<float>(static_cast<std::size_t>(padded_row_count(dtype, count) * columns));
      multiply(lm_head_, input, panels, logits, columns);
      for (int row = 0; row < count; ++row) {
        Best& found = best[static_cast<std::size_t>(slice * num_rows + first + row)];
        for (std::int64_t i = 0; i < columns; ++i) {
          const float logit = logits[row * columns + i];
          if (logit > found.logit) found = {logit, static_cast<TokenId>(slice * kSliceTokens + i)};
        }
      }
      first += count;
    }
  });

  std::vector<TokenId> tokens;
  for (std::int64_t row = 0; row < num_rows; ++row) {
    Best winner;
    for (std::int64_t slice = 0; slice < num_slices; ++slice) {
      const Best& candidate = best[static_cast<std::size_t>(slice * num_rows + row)];
      if (candidate.logit > winner.logit) winner = candidate;
    }
    tokens.push_back(winner.token);
  }
  return tokens;
}

}  // namespace exp3rt
