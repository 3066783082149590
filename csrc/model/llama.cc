#include "model/llama.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "ops/isa.h"
#include "ops/parallel.h"
#include "ops/store.h"
#include "ops/vector_kernels.h"

namespace exp3rt {
namespace {

constexpr float kLog2E = 1.44269504f;  // the softmax counts in powers of two

std::size_t z(std::int64_t n) { return static_cast<std::size_t>(n); }

Range panels_of(Range columns) { return {columns.begin / kPanelColumns, ceil_div(columns.end, kPanelColumns)}; }

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
  if (layer.down.dtype == DataType::kInt8) throw std::invalid_argument("weights: 'down' in int8 is not supported");
  const auto bytes = [](const PackedMatrix& w) {
    return Activations::num_bytes(w.dtype, max_panel_rows(), max_precise_panel_rows(), w.k);
  };
  for (Workspace& space : workspaces_) {
    space.input.get<std::byte>(std::max({bytes(layer.qkv), bytes(layer.o), bytes(layer.gate_up)}));
    space.inner.get<std::byte>(bytes(layer.down));
  }
}

void Llama::forward(const Batch& batch, KvStorage& kv, float* hidden) {
  prepare(batch);
  kv.make_room(batch.num_passing_blocks);
  parallel_for(num_threads_, static_cast<std::int64_t>(batch.fresh_blocks.size()),
               [&](std::int64_t i) { kv.refresh(batch.fresh_blocks[z(i)]); });
  for_panels([&](const Panel& panel, Team team) {
    embed(batch, panel, team);
    write_query_key_value(0, panel, team, kv.layer(0));
  });
  const int last = config_.num_layers - 1;
  const std::vector<AttentionTile> tiles = attention_.tiles(batch, num_threads_);
  for (int l = 0; l < last; ++l) {
    attend(tiles, kv.layer(l));
    for_panels([&](const Panel& panel, Team team) {
      finish_layer(layers_[z(l)], panel, team);
      write_query_key_value(l + 1, panel, team, kv.layer(l + 1));
    });
  }
  const Batch outputs = batch.outputs_only();
  keep_outputs(batch);
  cut(outputs);
  attend(attention_.tiles(outputs, num_threads_), kv.layer(last));
  for_panels([&](const Panel& panel, Team team) {
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
      for (const Panel& panel : panels_.all()) fn(panel, team);
    });
  } else {
    const std::span<const Panel> panels = panels_.all();
    parallel_for(num_threads_, static_cast<std::int64_t>(panels.size()),
                 [&](std::int64_t i) { fn(panels[z(i)], Team()); });
  }
}

void Llama::attend(const std::vector<AttentionTile>& tiles, const KvLayer& kv) {
  const auto begin = std::chrono::steady_clock::now();
  const auto num_tiles = static_cast<std::int64_t>(tiles.size());
  parallel_for(num_threads_, num_tiles * config_.num_kv_heads, [&](std::int64_t i) {
    const int head = static_cast<int>(i / num_tiles);
    attention_.run(tiles[z(i % num_tiles)], head, kv, queries_ + z(head) * query_stride_, attended_);
  });
  attention_s_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Moves the batch's output i to row i of the work. Every key is written by now, so no other row counts.
void Llama::keep_outputs(const Batch& batch) {
  const std::size_t query_bytes = z(shape_.group() * shape_.head_dim) * size_of(shape_.dtype);
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
  cut(batch);

  slots_.resize(z(rows));
  for (const BatchSlice& slice : batch.slices) {
    for (int i = 0; i < slice.num_rows; ++i) {
      const int token = slice.first_own_token + i;
      slots_[z(slice.first_row + i)] = {slice.own_blocks[z(token / kBlockTokens)], token % kBlockTokens};
    }
  }

  const std::size_t query_bytes = z(shape_.head_dim) * size_of(shape_.dtype);
  residual_ = residual_buffer_.get<float>(z(rows) * z(config_.hidden_size));
  query_stride_ = z(round_up(rows * shape_.group(), 64)) * query_bytes;
  queries_ = query_buffer_.get<std::byte>(query_stride_ * z(config_.num_kv_heads));
  attended_ = attended_buffer_.get<float>(z(rows) * z(config_.attention_size()));
  const std::size_t angles = z(rows) * z(config_.head_dim / 2);
  float* at = angle_buffer_.get<float>(4 * angles);
  key_angles_ = {at, at + angles};
  query_angles_ = {at + 2 * angles, at + 3 * angles};
}

void Llama::cut(const Batch& batch) {
  in_team_ = few_rows(batch.num_rows(), num_threads_);
  panels_ = Panels(batch.precise_rows, batch.num_rows(), num_threads_);
}

void Llama::embed(const Batch& batch, const Panel& panel, Team team) {
  const std::size_t hidden = z(config_.hidden_size);
  const std::size_t half = z(config_.head_dim / 2);
  const float scale = kLog2E / std::sqrt(static_cast<float>(config_.head_dim));
  for (const std::int64_t i : rows_of(panel, team)) {
    const std::int64_t row = panel.row(i);
    const std::byte* from = embed_ + z(batch.tokens[z(row)]) * hidden * size_of(config_.table_dtype());
    load(config_.table_dtype(), from, config_.hidden_size, residual_ + z(row) * hidden);
    const auto position = static_cast<float>(batch.positions[z(row)]);
    for (std::size_t d = 0; d < half; ++d) {
      const float angle = position * inv_freq_[d];
      const std::size_t at = z(row) * half + d;
      key_angles_.cosine[at] = std::cos(angle);
      key_angles_.sine[at] = std::sin(angle);
      query_angles_.cosine[at] = scale * key_angles_.cosine[at];
      query_angles_.sine[at] = scale * key_angles_.sine[at];
    }
  }
}

void Llama::write_query_key_value(int layer_index, const Panel& panel, Team team, const KvLayer& kv) {
  const Layer& layer = layers_[z(layer_index)];
  const Activations input = normed(layer.attn_norm, layer.qkv, panel, team);
  const std::int64_t dim = config_.head_dim;
  team.meet();
  for_parts(input, layer.qkv.n, std::lcm(dim, kPanelColumns), team, [&](Range columns) {
    const Result heads = product(layer.qkv, input, columns, 0);
    for (std::int64_t column = 0; column < columns.size(); column += dim) {
      const int head = static_cast<int>((columns.begin + column) / dim);
      for (int i = 0; i < panel.num_rows(); ++i) place_head(layer, panel.row(i), head, heads.row(i) + column, kv);
    }
  });
  team.meet();
}

// One head of one row of the product: a query goes to the batch's queries, a key or a value to its block.
void Llama::place_head(const Layer& layer, std::int64_t row, int head, float* values, const KvLayer& kv) {
  const int dim = config_.head_dim;
  if (layer.qkv_bias) vector_kernels().scale_add(values, 1.0f, layer.qkv_bias + head * dim, dim);
  const Slot slot = slots_[z(row)];
  const int key_head = head - config_.num_heads;
  if (head < config_.num_heads) {
    place_query(layer, row, head, values);
  } else if (key_head < config_.num_kv_heads) {
    turn(layer.k_norm, key_angles_, row, values);
    kv.store_key(slot.block, slot.index, key_head, values);
  } else {
    kv.store_value(slot.block, slot.index, key_head - config_.num_kv_heads, values);
  }
}

void Llama::place_query(const Layer& layer, std::int64_t row, int head, float* query) {
  const int dim = config_.head_dim;
  turn(layer.q_norm, query_angles_, row, query);
  const std::int64_t query_row = row * shape_.group() + head % shape_.group();
  std::byte* of_key_head = queries_ + z(head / shape_.group()) * query_stride_;
  store(shape_.dtype, query, dim, of_key_head + z(query_row) * z(dim) * size_of(shape_.dtype));
}

// To the row's position. norm: null, or what is done first.
void Llama::turn(const float* norm, const Angles& angles, std::int64_t row, float* head) const {
  const int dim = config_.head_dim;
  if (norm) vector_kernels().rms_norm(head, norm, config_.rms_norm_eps, dim, head);
  const std::size_t at = z(row) * z(dim / 2);
  vector_kernels().rotate(head, angles.cosine + at, angles.sine + at, dim / 2);
}

void Llama::attention_output(const Layer& layer, const Panel& panel, Team team) {
  Activations input = input_of(layer.o, panel);
  for (const std::int64_t i : rows_of(panel, team)) input.set(i, attended_ + z(panel.row(i)) * z(layer.o.k));
  team.meet();
  add_product_to_residual(layer.o, input, panel, team);
}

void Llama::mlp(const Layer& layer, const Panel& panel, Team team) {
  const Activations input = normed(layer.mlp_norm, layer.gate_up, panel, team);
  Activations inner(layer.down.dtype, panel.num_rows(), panel.num_precise, layer.down.k,
                    workspace().inner.get<std::byte>(0));
  team.meet();
  for_parts(input, config_.intermediate_size, kPanelColumns, team, [&](Range columns) {
    const Range up_columns{columns.begin + config_.intermediate_size, columns.end + config_.intermediate_size};
    const Result gate = product(layer.gate_up, input, columns, 0);
    const Result up = product(layer.gate_up, input, up_columns, 1);
    for (int i = 0; i < panel.num_rows(); ++i) {
      inner.set_swiglu(i, columns.begin, columns.size(), gate.row(i), up.row(i));
    }
  });
  team.meet();
  add_product_to_residual(layer.down, inner, panel, team);
}

void Llama::finish_layer(const Layer& layer, const Panel& panel, Team team) {
  attention_output(layer, panel, team);
  mlp(layer, panel, team);
}

void Llama::write_hidden(const Panel& panel, Team team, float* hidden) const {
  const std::size_t size = z(config_.hidden_size);
  for (const std::int64_t i : rows_of(panel, team)) {
    const std::int64_t row = panel.row(i);
    vector_kernels().rms_norm(residual_ + z(row) * size, final_norm_, config_.rms_norm_eps, config_.hidden_size,
                              hidden + z(row) * size);
  }
}

// The panel's input to products, in the workspace of those who work on it.
Activations Llama::input_of(const PackedMatrix& w, const Panel& panel) {
  return {w.dtype, panel.num_rows(), panel.num_precise, w.k, workspace().input.get<std::byte>(0)};
}

Activations Llama::normed(const float* weight, const PackedMatrix& w, const Panel& panel, Team team) {
  thread_local AlignedBuffer buffer;
  float* normed = buffer.get<float>(z(w.k));
  Activations input = input_of(w, panel);
  for (const std::int64_t i : rows_of(panel, team)) {
    vector_kernels().rms_norm(residual_ + z(panel.row(i)) * z(w.k), weight, config_.rms_norm_eps, w.k, normed);
    input.set(i, normed);
  }
  return input;
}

// fn(columns) for parts of a product of x: of this member's share of the first `count` columns, whole units of them.
template <typename Fn>
void Llama::for_parts(const Activations& x, std::int64_t count, std::int64_t unit, Team team, Fn&& fn) {
  const std::int64_t step = std::max<std::int64_t>(1, x.columns_at_once() / unit);
  const Range share = team.share(ceil_div(count, unit));
  for (std::int64_t first = share.begin; first < share.end; first += step) {
    fn(Range{first * unit, std::min(std::min(first + step, share.end) * unit, count)});
  }
}

// A part of x W in the thread's own memory, of which there are two. The panels that it lies in are computed whole.
Llama::Result Llama::product(const PackedMatrix& w, const Activations& x, Range columns, int memory) {
  thread_local std::array<AlignedBuffer, 2> buffers;
  const Range panels = panels_of(columns);
  const std::int64_t width = std::min(panels.end * kPanelColumns, w.n) - panels.begin * kPanelColumns;
  const std::int64_t stride = result_stride(w.dtype, width);
  const int padded = padded_row_count(w.dtype, x.product_rows());
  float* y = buffers[z(memory)].get<float>(z(padded * stride));
  multiply(w, x, panels, y, stride);
  return {y + columns.begin - panels.begin * kPanelColumns, stride, x};
}

// x is whole when this is called, and the residual when it returns.
void Llama::add_product_to_residual(const PackedMatrix& w, const Activations& x, const Panel& panel, Team team) {
  for_parts(x, w.n, kPanelColumns, team, [&](Range columns) {
    const Result y = product(w, x, columns, 0);
    for (int i = 0; i < panel.num_rows(); ++i) {
      float* residual = residual_ + panel.row(i) * w.n;
      vector_kernels().scale_add(residual + columns.begin, 1.0f, y.row(i), columns.size());
    }
  });
  team.meet();
}

}  // namespace exp3rt
