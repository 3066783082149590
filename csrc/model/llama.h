#pragma once

#include <ranges>
#include <string>
#include <vector>

#include "core/batch.h"
#include "core/model_config.h"
#include "model/kv_storage.h"
#include "model/panels.h"
#include "model/weights.h"
#include "ops/aligned_buffer.h"
#include "ops/attention.h"
#include "ops/item_format.h"
#include "ops/linear.h"
#include "ops/parallel.h"

namespace exp3rt {

// The decoder of the Llama family: Llama 2 and 3, SmolLM2, Mistral, Qwen2 (bias on q, k, v), Qwen3 (norm on q and k).
//
// A forward pass runs over panels of rows that fit the cache (model/panels.h); for each layer, all threads meet twice: once
// when every key of the batch is written, once when every row has attended. The last layer attends and goes on with
// the rows that have outputs alone.
//
// Of many rows, each thread takes whole panels. Few rows (reasoning) are the work of all threads as a team: they share
// the rows between products, and the columns of a product, so that each weight is read by one thread only.
class Llama {
 public:
  // item_dtype: what items' keys and values are kept in; see ItemFormat.
  Llama(Weights& weights, const ModelConfig& config, int num_threads, DataType item_dtype);

  // hidden: [batch.outputs.size(), hidden_size], the normed last hidden state of the rows asked for.
  void forward(const Batch& batch, KvStorage& kv, float* hidden);
  const ItemFormat& item_format() const { return items_; }
  double attention_s() const { return attention_s_; }  // seconds spent in attention so far

 private:
  struct Layer {
    const float* attn_norm;
    PackedMatrix qkv;
    const float* qkv_bias;  // null: none
    const float* q_norm;    // null: none
    const float* k_norm;
    PackedMatrix o;
    const float* mlp_norm;
    PackedMatrix gate_up;
    PackedMatrix down;
  };
  struct Slot {
    BlockId block;
    int index;  // token within the block
  };
  // What goes into the products of a panel, of one thread or of a team.
  struct Workspace {
    AlignedBuffer input, inner;
  };
  // Some columns of a product, row by row of the activations.
  struct Result {
    float* at;
    std::int64_t stride;
    const Activations& x;
    float* row(std::int64_t index) const { return at + x.product_row(index) * stride; }
  };

  // Of the rows' positions: [rows, head_dim / 2]. A query's have the softmax's scale in them.
  struct Angles {
    float* cosine = nullptr;
    float* sine = nullptr;
  };

  static std::vector<Layer> load_layers(Weights& weights, const ModelConfig& config);
  static Layer load_layer(Weights& weights, const ModelConfig& config, int index);
  void make_workspaces();
  void prepare(const Batch& batch);
  void embed(const Batch& batch, const Panel& panel, Team team);
  void write_query_key_value(int layer, const Panel& panel, Team team, const KvLayer& kv);
  void place_head(const Layer& layer, std::int64_t row, int head, float* values, const KvLayer& kv);
  void place_query(const Layer& layer, std::int64_t row, int head, float* query);
  void turn(const float* norm, const Angles& angles, std::int64_t row, float* head) const;
  template <typename Fn>
  void for_panels(Fn&& fn) const;
  void attend(const std::vector<AttentionTile>& tiles, const KvLayer& kv);
  void keep_outputs(const Batch& batch);
  void copy_items(const Batch& batch, const KvStorage& kv) const;
  void finish_layer(const Layer& layer, const Panel& panel, Team team);
  void write_hidden(const Panel& panel, Team team, float* hidden) const;
  void attention_output(const Layer& layer, const Panel& panel, Team team);
  void mlp(const Layer& layer, const Panel& panel, Team team);
  void cut(const Batch& batch);
  Workspace& workspace() { return workspaces_[in_team_ ? 0 : static_cast<std::size_t>(omp_get_thread_num())]; }
  // This member's rows of the panel
  static auto rows_of(const Panel& panel, Team team) {
    const Range share = team.share(panel.num_rows());
    return std::views::iota(share.begin, share.end);
  }
  Activations input_of(const PackedMatrix& w, const Panel& panel);
  Activations normed(const float* weight, const PackedMatrix& w, const Panel& panel, Team team);
  template <typename Fn>
  static void for_parts(const Activations& x, std::int64_t count, std::int64_t unit, Team team, Fn&& fn);
  static Result product(const PackedMatrix& w, const Activations& x, Range columns, int memory);
  void add_product_to_residual(const PackedMatrix& w, const Activations& x, const Panel& panel, Team team);

  ModelConfig config_;
  int num_threads_;
  AttentionShape shape_;
  const std::byte* embed_;
  const float* final_norm_;
  const float* inv_freq_;  // [head_dim / 2]
  std::vector<Layer> layers_;
  ItemFormat items_;
  Attention attention_;
  std::vector<Workspace> workspaces_;  // one per thread; a team works in the first
  double attention_s_ = 0;

  // Of the batch at hand.
  Panels panels_;
  bool in_team_ = false;     // all threads work on each panel
  std::vector<Slot> slots_;  // [rows]
  AlignedBuffer residual_buffer_, query_buffer_, attended_buffer_, angle_buffer_;
  float* residual_ = nullptr;     // [rows, hidden]
  std::byte* queries_ = nullptr;  // [num_kv_heads, rows * group (+ slack), head_dim]
  std::size_t query_stride_ = 0;  // bytes between key heads
  float* attended_ = nullptr;     // [rows, num_heads * head_dim]
  Angles key_angles_, query_angles_;
};

}  // namespace exp3rt
