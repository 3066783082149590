#include "model/llama.h"

#include <algorithm>
#include <cmath>

#include "ops/isa.h"
#include "ops/parallel.h"
#include "ops/store.h"
#include "ops/vector_kernels.h"

namespace exp3rt {
namespace {

constexpr int kMaxPanelRows = 64;  // activations of a panel stay in the L2 cache
constexpr int kMinPanelRows = 16;  // fewer rows waste the product kernels

std::size_t z(std::int64_t n) { return static_cast<std::size_t>(n); }

// Of one thread, for one panel.
struct Workspace {
  AlignedBuffer input, output;
};

Workspace& workspace() {
  thread_local Workspace space;
  return space;
}

int padded(int rows) { return MatMul::padded_row_count(rows); }

}  // namespace

Llama::Llama(Weights& weights, const ModelConfig& config, int num_threads)
    : config_(config),
      num_threads_(num_threads),
      dtype_(compute_type(config.dtype)),
      shape_{config.num_heads, config.num_kv_heads, config.head_dim, dtype_},
      embed_(weights.rows("embed", config.vocab_size, config.hidden_size, config.dtype)),
      final_norm_(weights.vector("final_norm", config.hidden_size)),
      inv_freq_(weights.vector("rope.inv_freq", config.head_dim / 2)),
      attention_(shape_),
      qkv_(dtype_, config.hidden_size, config.qkv_size()),
      o_(dtype_, config.attention_size(), config.hidden_size),
      gate_up_(dtype_, config.hidden_size, 2 * config.intermediate_size),
      down_(dtype_, config.intermediate_size, config.hidden_size) {
  for (int i = 0; i < config.num_layers; ++i) layers_.push_back(load_layer(weights, config, i));
}

Llama::Layer Llama::load_layer(Weights& weights, const ModelConfig& config, int index) {
  const std::string at = "layers." + std::to_string(index) + ".";
  const int hidden = config.hidden_size;
  return {
      weights.vector(at + "attn_norm", hidden),
      weights.matrix(at + "qkv", config.qkv_size(), hidden, config.dtype),
      weights.optional_vector(at + "qkv_bias", config.qkv_size()),
      weights.optional_vector(at + "q_norm", config.head_dim),
      weights.optional_vector(at + "k_norm", config.head_dim),
      weights.matrix(at + "o", hidden, config.attention_size(), config.dtype),
      weights.vector(at + "mlp_norm", hidden),
      weights.matrix(at + "gate_up", 2 * config.intermediate_size, hidden, config.dtype),
      weights.matrix(at + "down", hidden, config.intermediate_size, config.dtype),
  };
}

void Llama::forward(const Batch& batch, const KvStorage& kv, float* hidden) {
  prepare(batch);
  parallel_for(num_threads_, static_cast<std::int64_t>(batch.fresh_blocks.size()),
               [&](std::int64_t i) { kv.refresh(batch.fresh_blocks[z(i)]); });
  for_panels([&](Panel panel) {
    embed(batch, panel);
    write_query_key_value(0, panel, kv.layer(0));
  });
  const int last = config_.num_layers - 1;
  for (int l = 0; l < last; ++l) {
    attend(batch, kv.layer(l));
    for_panels([&](Panel panel) {
      finish_layer(layers_[z(l)], panel);
      write_query_key_value(l + 1, panel, kv.layer(l + 1));
    });
  }
  const Batch outputs = batch.outputs_only();
  keep_outputs(batch);
  attend(outputs, kv.layer(last));
  for_panels([&](Panel panel) {
    finish_layer(layers_[z(last)], panel);
    write_hidden(panel, hidden);
  });
}

template <typename Fn>
void Llama::for_panels(Fn&& fn) const {
  parallel_for(num_threads_, static_cast<std::int64_t>(panels_.size()), [&](std::int64_t i) { fn(panels_[z(i)]); });
}

void Llama::attend(const Batch& batch, const KvLayer& kv) {
  const std::vector<AttentionTile> tiles = attention_.tiles(batch, num_threads_);
  const auto num_tiles = static_cast<std::int64_t>(tiles.size());
  parallel_for(num_threads_, num_tiles * config_.num_kv_heads, [&](std::int64_t i) {
    const int head = static_cast<int>(i / num_tiles);
    attention_.run(tiles[z(i % num_tiles)], head, kv, queries_ + z(head) * query_stride_, attended_);
  });
}

// From here on, row i of the work is that of the batch's output i. Every key is written by now, so no other row counts.
void Llama::keep_outputs(const Batch& batch) {
  const std::size_t query_bytes = z(shape_.group() * shape_.score_dim()) * size_of(dtype_);
  const std::size_t hidden = z(config_.hidden_size);
  int num_precise = 0;
  for (std::size_t i = 0; i < batch.outputs.size(); ++i) {
    const std::size_t row = z(batch.outputs[i].row);  // i <= row: nothing is overwritten that is still to be moved
    std::copy_n(residual_ + row * hidden, hidden, residual_ + i * hidden);
    for (int head = 0; head < config_.num_kv_heads; ++head) {
      std::byte* queries = queries_ + z(head) * query_stride_;
      std::copy_n(queries + row * query_bytes, query_bytes, queries + i * query_bytes);
    }
    if (batch.outputs[i].row < batch.num_precise_rows) ++num_precise;
  }
  cut_panels(static_cast<int>(batch.outputs.size()), num_precise);
}

// Cuts the batch into panels and makes room for it.
void Llama::prepare(const Batch& batch) {
  const int rows = batch.num_rows();
  cut_panels(rows, batch.num_precise_rows);

  slots_.resize(z(rows));
  for (const BatchSlice& slice : batch.slices) {
    for (int i = 0; i < slice.num_rows; ++i) {
      const int token = slice.first_own_token + i;
      slots_[z(slice.first_row + i)] = {slice.own_blocks[z(token / kBlockTokens)], token % kBlockTokens};
    }
  }

  const std::size_t query_bytes = z(shape_.score_dim()) * size_of(dtype_);
  residual_ = residual_buffer_.get<float>(z(rows) * z(config_.hidden_size));
  query_stride_ = z(round_up(rows * shape_.group() + MatMul::kMaxRows, 64)) * query_bytes;
  queries_ = query_buffer_.get<std::byte>(query_stride_ * z(config_.num_kv_heads));
  attended_ = attended_buffer_.get<float>(z(rows) * z(config_.attention_size()));
  cosine_ = cosine_buffer_.get<float>(z(rows) * z(config_.head_dim / 2));
  sine_ = sine_buffer_.get<float>(z(rows) * z(config_.head_dim / 2));
}

void Llama::cut_panels(int num_rows, int num_precise) {
  if (dtype_ != DataType::kBFloat16) num_precise = 0;
  panels_.clear();
  add_panels(0, num_precise, true);
  add_panels(num_precise, num_rows, false);
}

// Panels of nearly the same size, as many as give every thread the same number of them.
void Llama::add_panels(int begin, int end, bool precise) {
  const int rows = end - begin;
  const int most = std::max(1, rows / kMinPanelRows);
  const int fewest = static_cast<int>(ceil_div(rows, kMaxPanelRows));
  const int count = std::min(most, static_cast<int>(round_up(fewest, num_threads_)));
  for (int i = 0; i < count; ++i) {
    const int row = begin + rows * i / count;
    panels_.push_back({row, begin + rows * (i + 1) / count - row, precise});
  }
}

void Llama::embed(const Batch& batch, Panel panel) {
  const std::size_t hidden = z(config_.hidden_size);
  const std::size_t half = z(config_.head_dim / 2);
  for (int row = panel.first_row; row < panel.first_row + panel.num_rows; ++row) {
    const std::byte* from = embed_ + z(batch.tokens[z(row)]) * hidden * size_of(config_.dtype);
    load(config_.dtype, from, config_.hidden_size, residual_ + z(row) * hidden);
    const auto position = static_cast<float>(batch.positions[z(row)]);
    for (std::size_t i = 0; i < half; ++i) {
      const float angle = position * inv_freq_[i];
      cosine_[z(row) * half + i] = std::cos(angle);
      sine_[z(row) * half + i] = std::sin(angle);
    }
  }
}

void Llama::write_query_key_value(int layer_index, Panel panel, const KvLayer& kv) {
  const Layer& layer = layers_[z(layer_index)];
  const std::size_t width = z(config_.qkv_size());
  const std::size_t rows = z(padded(panel.product_rows()));
  auto* input = workspace().input.get<std::byte>(rows * z(config_.hidden_size) * size_of(dtype_));
  auto* output = workspace().output.get<float>(rows * width);
  write_normed(layer.attn_norm, panel, input);
  multiply(qkv_, layer.qkv, input, output, panel);
  for (int i = 0; i < panel.num_rows; ++i) place_row(layer, panel.first_row + i, output + z(i) * width, kv);
}

// One row of the product: the query goes to the batch's queries, the key and value to their block.
void Llama::place_row(const Layer& layer, int row, float* qkv, const KvLayer& kv) {
  const VectorKernels& kernels = vector_kernels();
  const int dim = config_.head_dim;
  float* keys = qkv + config_.num_heads * dim;
  const float* values = keys + config_.num_kv_heads * dim;
  if (layer.qkv_bias) kernels.scale_add(qkv, 1.0f, layer.qkv_bias, config_.qkv_size());
  if (layer.q_norm) normalize_heads(layer.q_norm, qkv, config_.num_heads);
  if (layer.k_norm) normalize_heads(layer.k_norm, keys, config_.num_kv_heads);
  const std::size_t angles = z(row) * z(dim / 2);
  for (int head = 0; head < config_.num_heads + config_.num_kv_heads; ++head) {
    kernels.rotate(qkv + head * dim, cosine_ + angles, sine_ + angles, dim / 2);
  }
  constexpr float kLog2E = 1.44269504f;
  kernels.scale(qkv, kLog2E / std::sqrt(static_cast<float>(dim)), config_.num_heads * dim, qkv);
  const Slot slot = slots_[z(row)];
  const std::size_t query_bytes = z(shape_.score_dim()) * size_of(dtype_);
  for (int head = 0; head < config_.num_heads; ++head) {
    std::byte* queries = queries_ + z(head / shape_.group()) * query_stride_;
    const int query_row = row * shape_.group() + head % shape_.group();
    shape_.store_query(qkv + head * dim, queries + z(query_row) * query_bytes);
  }
  for (int head = 0; head < config_.num_kv_heads; ++head) {
    kv.store(slot.block, slot.index, head, keys + head * dim, values + head * dim);
  }
}

void Llama::normalize_heads(const float* weight, float* heads, int count) const {
  const int dim = config_.head_dim;
  for (int head = 0; head < count; ++head) {
    vector_kernels().rms_norm(heads + head * dim, weight, config_.rms_norm_eps, dim, heads + head * dim);
  }
}

void Llama::attention_output(const Layer& layer, Panel panel) {
  const std::size_t rows = z(padded(panel.product_rows()));
  const int width = config_.attention_size();
  auto* input = workspace().input.get<std::byte>(rows * z(width) * size_of(dtype_));
  auto* output = workspace().output.get<float>(rows * z(config_.hidden_size));
  for (int i = 0; i < panel.num_rows; ++i) {
    write_input(attended_ + z(panel.first_row + i) * z(width), i, width, panel, input);
  }
  multiply(o_, layer.o, input, output, panel);
  add_to_residual(panel, output);
}

void Llama::mlp(const Layer& layer, Panel panel) {
  const std::size_t rows = z(padded(panel.product_rows()));
  const std::size_t inner = z(config_.intermediate_size);
  const std::size_t widest = std::max(z(config_.hidden_size), inner);
  auto* input = workspace().input.get<std::byte>(rows * widest * size_of(dtype_));
  auto* output = workspace().output.get<float>(rows * std::max(2 * inner, z(config_.hidden_size)));
  write_normed(layer.mlp_norm, panel, input);
  multiply(gate_up_, layer.gate_up, input, output, panel);
  for (int i = 0; i < panel.num_rows; ++i) {
    float* gate = output + z(i) * 2 * inner;
    vector_kernels().swiglu(gate, gate + inner, config_.intermediate_size);
    write_input(gate, i, config_.intermediate_size, panel, input);
  }
  multiply(down_, layer.down, input, output, panel);
  add_to_residual(panel, output);
}

void Llama::finish_layer(const Layer& layer, Panel panel) {
  attention_output(layer, panel);
  mlp(layer, panel);
}

void Llama::write_hidden(Panel panel, float* hidden) const {
  const std::size_t size = z(config_.hidden_size);
  for (std::size_t row = z(panel.first_row); row < z(panel.first_row + panel.num_rows); ++row) {
    vector_kernels().rms_norm(residual_ + row * size, final_norm_, config_.rms_norm_eps, config_.hidden_size,
                              hidden + row * size);
  }
}

void Llama::write_input(const float* row, int i, int width, Panel panel, std::byte* input) const {
  const std::size_t row_bytes = z(width) * size_of(dtype_);
  std::byte* to = input + z(i) * row_bytes;
  if (panel.precise) {
    store_split(row, width, to, to + z(panel.num_rows) * row_bytes);
  } else {
    store(dtype_, row, width, to);
  }
}

void Llama::write_normed(const float* weight, Panel panel, std::byte* input) const {
  thread_local AlignedBuffer buffer;
  const int hidden = config_.hidden_size;
  float* normed = buffer.get<float>(z(hidden));
  for (int i = 0; i < panel.num_rows; ++i) {
    const float* row = residual_ + z(panel.first_row + i) * z(hidden);
    vector_kernels().rms_norm(row, weight, config_.rms_norm_eps, hidden, normed);
    write_input(normed, i, hidden, panel, input);
  }
}

void Llama::multiply(const MatMul& product, const PackedMatrix& w, const std::byte* input, float* output,
                     Panel panel) const {
  product(input, w, output, panel.product_rows());
  if (!panel.precise) return;
  const std::int64_t size = panel.num_rows * w.n;
  vector_kernels().scale_add(output, 1.0f, output + size, size);
}

void Llama::add_to_residual(Panel panel, const float* y) {
  const auto count = static_cast<std::int64_t>(panel.num_rows) * config_.hidden_size;
  vector_kernels().scale_add(residual_ + z(panel.first_row) * z(config_.hidden_size), 1.0f, y, count);
}

}  // namespace exp3rt
