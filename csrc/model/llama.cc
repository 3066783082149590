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
constexpr int kMinPanelRows = 32;  // of a thread by itself: fewer waste the product kernels, and memory's bandwidth

std::size_t z(std::int64_t n) { return static_cast<std::size_t>(n); }

}  // namespace

Llama::Llama(Weights& weights, const ModelConfig& config, int num_threads, DataType item_dtype)
    : config_(config),
      num_threads_(num_threads),
      shape_{config.num_heads, config.num_kv_heads, config.head_dim, compute_type(config.table_dtype())},
      embed_(weights.rows("embed", config.vocab_size, config.hidden_size, config.table_dtype())),
      final_norm_(weights.vector("final_norm", config.hidden_size)),
      inv_freq_(weights.vector("rope.inv_freq", config.head_dim / 2)),
      layers_(load_layers(weights, config)),
      items_(shape_, config.num_layers, item_dtype == DataType::kInt8 ? item_dtype : shape_.dtype),
      attention_(shape_, items_),
      workspaces_(z(num_threads)) {
  make_workspaces();
}

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

void Llama::make_workspaces() {
  const Layer& layer = layers_.front();
  std::size_t input = 0;
  std::int64_t width = 0;
  for (const PackedMatrix* w : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) {
    input = std::max(input, Activations::num_bytes(w->dtype, kMaxPanelRows, w->k, true));
    width = std::max(width, w->n);
  }
  for (Workspace& space : workspaces_) {
    space.input.get<std::byte>(input);
    space.output.get<float>(z(padded_row_count(2 * kMaxPanelRows) * width));
  }
}

void Llama::forward(const Batch& batch, const KvStorage& kv, float* hidden) {
  prepare(batch);
  parallel_for(num_threads_, static_cast<std::int64_t>(batch.fresh_blocks.size()),
               [&](std::int64_t i) { kv.refresh(batch.fresh_blocks[z(i)]); });
  for_panels([&](Panel panel, Team team) {
    embed(batch, panel, team);
    write_query_key_value(0, panel, team, kv.layer(0));
  });
  const int last = config_.num_layers - 1;
  const std::vector<AttentionTile> tiles = attention_.tiles(batch, num_threads_);
  for (int l = 0; l < last; ++l) {
    attend(tiles, kv.layer(l));
    for_panels([&](Panel panel, Team team) {
      finish_layer(layers_[z(l)], panel, team);
      write_query_key_value(l + 1, panel, team, kv.layer(l + 1));
    });
  }
  const Batch outputs = batch.outputs_only();
  keep_outputs(batch);
  cut_panels(outputs);
  attend(attention_.tiles(outputs, num_threads_), kv.layer(last));
  for_panels([&](Panel panel, Team team) {
    finish_layer(layers_[z(last)], panel, team);
    write_hidden(panel, team, hidden);
  });
  copy_items(batch, kv);
}

void Llama::copy_items(const Batch& batch, const KvStorage& kv) const {
  const auto layers = static_cast<std::int64_t>(config_.num_layers);
  parallel_for(num_threads_, static_cast<std::int64_t>(batch.item_copies.size()) * layers, [&](std::int64_t i) {
    const ItemCopy& copy = batch.item_copies[z(i / layers)];
    items_.store(kv.layer(static_cast<int>(i % layers)), copy.blocks, copy.num_tokens, copy.to);
  });
}

template <typename Fn>
void Llama::for_panels(Fn&& fn) const {
  if (in_team_) {
    in_team(num_threads_, [&](Team team) {
      for (const Panel panel : panels_) fn(panel, team);
    });
  } else {
    const auto count = static_cast<std::int64_t>(panels_.size());
    parallel_for(num_threads_, count, [&](std::int64_t i) { fn(panels_[z(i)], Team()); });
  }
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
  query_stride_ = z(round_up(rows * shape_.group() + kMaxProductRows, 64)) * query_bytes;
  queries_ = query_buffer_.get<std::byte>(query_stride_ * z(config_.num_kv_heads));
  attended_ = attended_buffer_.get<float>(z(rows) * z(config_.attention_size()));
  cosine_ = cosine_buffer_.get<float>(z(rows) * z(config_.head_dim / 2));
  sine_ = sine_buffer_.get<float>(z(rows) * z(config_.head_dim / 2));
}

void Llama::cut_panels(const Batch& batch) {
  in_team_ = num_threads_ > 1 && batch.num_rows() < num_threads_ * kMinPanelRows;
  panels_.clear();
  add_panels(0, batch.num_precise_rows, true);
  add_panels(batch.num_precise_rows, batch.num_rows(), false);
}

// Panels of nearly the same size; threads that work alone get the same number of them each.
void Llama::add_panels(int begin, int end, bool precise) {
  const int rows = end - begin;
  const int fewest = static_cast<int>(ceil_div(rows, kMaxPanelRows));
  const int most = std::max(1, rows / kMinPanelRows);
  const int count =
      in_team_ ? fewest : std::max(fewest, std::min(most, static_cast<int>(round_up(fewest, num_threads_))));
  for (int i = 0; i < count; ++i) {
    const int row = begin + rows * i / count;
    panels_.push_back({row, begin + rows * (i + 1) / count - row, precise});
  }
}

void Llama::embed(const Batch& batch, Panel panel, Team team) {
  const std::size_t hidden = z(config_.hidden_size);
  const std::size_t half = z(config_.head_dim / 2);
  for (const int row : rows_of(panel, team)) {
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

void Llama::write_query_key_value(int layer_index, Panel panel, Team team, const KvLayer& kv) {
  const Layer& layer = layers_[z(layer_index)];
  float* output = product(layer.qkv, normed(layer.attn_norm, layer.qkv, panel, team), team);
  team.meet();
  for (const int row : rows_of(panel, team)) {
    place_row(layer, row, output + z(row - panel.first_row) * z(layer.qkv.n), kv);
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

void Llama::attention_output(const Layer& layer, Panel panel, Team team) {
  Activations input = input_of(layer.o, panel);
  for (const int row : rows_of(panel, team)) input.set(row - panel.first_row, attended_ + z(row) * z(layer.o.k));
  add_product_to_residual(layer.o, input, panel, team);
}

void Llama::mlp(const Layer& layer, Panel panel, Team team) {
  const int inner = config_.intermediate_size;
  float* output = product(layer.gate_up, normed(layer.mlp_norm, layer.gate_up, panel, team), team);
  team.meet();
  Activations input = input_of(layer.down, panel);
  for (const int row : rows_of(panel, team)) {
    const int i = row - panel.first_row;
    float* gate = output + z(i) * z(layer.gate_up.n);
    vector_kernels().swiglu(gate, gate + inner, inner);
    input.set(i, gate);
  }
  add_product_to_residual(layer.down, input, panel, team);
}

void Llama::finish_layer(const Layer& layer, Panel panel, Team team) {
  attention_output(layer, panel, team);
  mlp(layer, panel, team);
}

void Llama::write_hidden(Panel panel, Team team, float* hidden) const {
  const std::size_t size = z(config_.hidden_size);
  for (const int row : rows_of(panel, team)) {
    vector_kernels().rms_norm(residual_ + z(row) * size, final_norm_, config_.rms_norm_eps, config_.hidden_size,
                              hidden + z(row) * size);
  }
}

// The panel's input to products, in the workspace of those who work on it.
Activations Llama::input_of(const PackedMatrix& w, Panel panel) {
  return {w.dtype, panel.num_rows, w.k, panel.precise, workspace().input.get<std::byte>(0)};
}

Activations Llama::normed(const float* weight, const PackedMatrix& w, Panel panel, Team team) {
  thread_local AlignedBuffer buffer;
  float* normed = buffer.get<float>(z(w.k));
  Activations input = input_of(w, panel);
  for (const int row : rows_of(panel, team)) {
    vector_kernels().rms_norm(residual_ + z(row) * z(w.k), weight, config_.rms_norm_eps, w.k, normed);
    input.set(row - panel.first_row, normed);
  }
  return input;
}

// x W, [panel rows, w.n], of which each member of the team computes some columns as soon as x is whole.
float* Llama::product(const PackedMatrix& w, const Activations& x, Team team) {
  float* y = workspace().output.get<float>(0);
  team.meet();
  multiply(w, x, team.share(w.num_panels()), y);
  return y;
}

void Llama::add_product_to_residual(const PackedMatrix& w, const Activations& x, Panel panel, Team team) {
  const float* y = product(w, x, team);
  const Range panels = team.share(w.num_panels());  // the columns that this member has
  const std::int64_t begin = panels.begin * kPanelColumns;
  const std::int64_t size = std::min(panels.end * kPanelColumns, w.n) - begin;
  for (int i = 0; i < panel.num_rows; ++i) {
    float* residual = residual_ + z(panel.first_row + i) * z(w.n);
    vector_kernels().scale_add(residual + begin, 1.0f, y + z(i) * z(w.n) + begin, size);
  }
  team.meet();
}

}  // namespace exp3rt
