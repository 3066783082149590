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

MatMul product_with(const PackedMatrix& w) { return {w.dtype, w.k, w.n}; }

// Of one thread, for one panel.
struct Workspace {
  Activations input;
  AlignedBuffer output;
  // Of a product with a panel: [padded rows, width]
  float* output_of(std::int64_t width) {
    return output.get<float>(z(MatMul::padded_row_count(input.product_rows()) * width));
  }
};

Workspace& workspace() {
  thread_local Workspace space;
  return space;
}

}  // namespace

Llama::Llama(Weights& weights, const ModelConfig& config, int num_threads)
    : config_(config),
      num_threads_(num_threads),
      shape_{config.num_heads, config.num_kv_heads, config.head_dim, compute_type(config.table_dtype())},
      embed_(weights.rows("embed", config.vocab_size, config.hidden_size, config.table_dtype())),
      final_norm_(weights.vector("final_norm", config.hidden_size)),
      inv_freq_(weights.vector("rope.inv_freq", config.head_dim / 2)),
      layers_(load_layers(weights, config)),
      attention_(shape_),
      qkv_(product_with(layers_.front().qkv)),
      o_(product_with(layers_.front().o)),
      gate_up_(product_with(layers_.front().gate_up)),
      down_(product_with(layers_.front().down)) {}

std::vector<Llama::Layer> Llama::load_layers(Weights& weights, const ModelConfig& config) {
  std::vector<Layer> layers;
  for (int i = 0; i < config.num_layers; ++i) layers.push_back(load_layer(weights, config, i));
  return layers;
}

Llama::Layer Llama::load_layer(Weights& weights, const ModelConfig& config, int index) {
  const std::string at = "layers." + std::to_string(index) + ".";
  const int hidden = config.hidden_size;
  return {
      weights.vector(at + "attn_norm", hidden),
      weights.matrix(at + "qkv", config.qkv_size(), hidden, config.table_dtype()),
      weights.optional_vector(at + "qkv_bias", config.qkv_size()),
      weights.optional_vector(at + "q_norm", config.head_dim),
      weights.optional_vector(at + "k_norm", config.head_dim),
      weights.matrix(at + "o", hidden, config.attention_size(), config.table_dtype()),
      weights.vector(at + "mlp_norm", hidden),
      weights.matrix(at + "gate_up", 2 * config.intermediate_size, hidden, config.table_dtype()),
      weights.matrix(at + "down", hidden, config.intermediate_size, config.table_dtype()),
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
  const std::vector<AttentionTile> tiles = attention_.tiles(batch, num_threads_);
  for (int l = 0; l < last; ++l) {
    attend(tiles, kv.layer(l));
    for_panels([&](Panel panel) {
      finish_layer(layers_[z(l)], panel);
      write_query_key_value(l + 1, panel, kv.layer(l + 1));
    });
  }
  const Batch outputs = batch.outputs_only();
  keep_outputs(batch);
  cut_panels(outputs);
  attend(attention_.tiles(outputs, num_threads_), kv.layer(last));
  for_panels([&](Panel panel) {
    finish_layer(layers_[z(last)], panel);
    write_hidden(panel, hidden);
  });
}

template <typename Fn>
void Llama::for_panels(Fn&& fn) const {
  parallel_for(num_threads_, static_cast<std::int64_t>(panels_.size()), [&](std::int64_t i) { fn(panels_[z(i)]); });
}

void Llama::attend(const std::vector<AttentionTile>& tiles, const KvLayer& kv) {
  const auto num_tiles = static_cast<std::int64_t>(tiles.size());
  parallel_for(num_threads_, num_tiles * config_.num_kv_heads, [&](std::int64_t i) {
    const int head = static_cast<int>(i / num_tiles);
    attention_.run(tiles[z(i % num_tiles)], head, kv, queries_ + z(head) * query_stride_, attended_);
  });
}

// Moves the batch's output i to row i of the work. Every key is written by now, so no other row counts.
void Llama::keep_outputs(const Batch& batch) {
  const std::size_t query_bytes = z(shape_.group() * shape_.score_dim()) * size_of(shape_.dtype);
  const std::size_t hidden = z(config_.hidden_size);
  for (std::size_t i = 0; i < batch.outputs.size(); ++i) {
    const std::size_t row = z(batch.outputs[i].row);  // i <= row: nothing is overwritten that is still to be moved
    std::copy_n(residual_ + row * hidden, hidden, residual_ + i * hidden);
    for (int head = 0; head < config_.num_kv_heads; ++head) {
      std::byte* queries = queries_ + z(head) * query_stride_;
      std::copy_n(queries + row * query_bytes, query_bytes, queries + i * query_bytes);
    }
  }
}

// Cuts the batch into panels and makes room for it.
void Llama::prepare(const Batch& batch) {
  const int rows = batch.num_rows();
  cut_panels(batch);

  slots_.resize(z(rows));
  for (const BatchSlice& slice : batch.slices) {
    for (int i = 0; i < slice.num_rows; ++i) {
      const int token = slice.first_own_token + i;
      slots_[z(slice.first_row + i)] = {slice.own_blocks[z(token / kBlockTokens)], token % kBlockTokens};
    }
  }

  const std::size_t query_bytes = z(shape_.score_dim()) * size_of(shape_.dtype);
  residual_ = residual_buffer_.get<float>(z(rows) * z(config_.hidden_size));
  query_stride_ = z(round_up(rows * shape_.group() + MatMul::kMaxRows, 64)) * query_bytes;
  queries_ = query_buffer_.get<std::byte>(query_stride_ * z(config_.num_kv_heads));
  attended_ = attended_buffer_.get<float>(z(rows) * z(config_.attention_size()));
  cosine_ = cosine_buffer_.get<float>(z(rows) * z(config_.head_dim / 2));
  sine_ = sine_buffer_.get<float>(z(rows) * z(config_.head_dim / 2));
}

void Llama::cut_panels(const Batch& batch) {
  panels_.clear();
  add_panels(0, batch.num_precise_rows, true);
  add_panels(batch.num_precise_rows, batch.num_rows(), false);
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
    const std::byte* from = embed_ + z(batch.tokens[z(row)]) * hidden * size_of(config_.table_dtype());
    load(config_.table_dtype(), from, config_.hidden_size, residual_ + z(row) * hidden);
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
  Workspace& space = workspace();
  set_normed(layer.attn_norm, panel, layer.qkv.dtype, space.input);
  float* output = space.output_of(config_.qkv_size());
  multiply(qkv_, layer.qkv, space.input, output);
  for (int i = 0; i < panel.num_rows; ++i) {
    place_row(layer, panel.first_row + i, output + z(i) * z(config_.qkv_size()), kv);
  }
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
  const std::size_t query_bytes = z(shape_.score_dim()) * size_of(shape_.dtype);
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
  Workspace& space = workspace();
  const int width = config_.attention_size();
  space.input.start(layer.o.dtype, panel.num_rows, width, panel.precise);
  for (int i = 0; i < panel.num_rows; ++i) space.input.set(i, attended_ + z(panel.first_row + i) * z(width));
  float* output = space.output_of(config_.hidden_size);
  multiply(o_, layer.o, space.input, output);
  add_to_residual(panel, output);
}

void Llama::mlp(const Layer& layer, Panel panel) {
  Workspace& space = workspace();
  const int inner = config_.intermediate_size;
  set_normed(layer.mlp_norm, panel, layer.gate_up.dtype, space.input);
  float* output = space.output_of(std::max(2 * inner, config_.hidden_size));
  multiply(gate_up_, layer.gate_up, space.input, output);
  space.input.start(layer.down.dtype, panel.num_rows, inner, panel.precise);
  for (int i = 0; i < panel.num_rows; ++i) {
    float* gate = output + z(i) * 2 * z(inner);
    vector_kernels().swiglu(gate, gate + inner, inner);
    space.input.set(i, gate);
  }
  multiply(down_, layer.down, space.input, output);
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

void Llama::set_normed(const float* weight, Panel panel, DataType dtype, Activations& input) const {
  thread_local AlignedBuffer buffer;
  const int hidden = config_.hidden_size;
  float* normed = buffer.get<float>(z(hidden));
  input.start(dtype, panel.num_rows, hidden, panel.precise);
  for (int i = 0; i < panel.num_rows; ++i) {
    const float* row = residual_ + z(panel.first_row + i) * z(hidden);
    vector_kernels().rms_norm(row, weight, config_.rms_norm_eps, hidden, normed);
    input.set(i, normed);
  }
}

void Llama::add_to_residual(Panel panel, const float* y) {
  const auto count = static_cast<std::int64_t>(panel.num_rows) * config_.hidden_size;
  vector_kernels().scale_add(residual_ + z(panel.first_row) * z(config_.hidden_size), 1.0f, y, count);
}

}  // namespace exp3rt
