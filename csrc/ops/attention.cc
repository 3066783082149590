#include "ops/attention.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "ops/aligned_buffer.h"
#include "ops/store.h"
#include "ops/vector_kernels.h"

namespace exp3rt {
namespace {

constexpr int kTileRows = 192;  // query rows: three heads of 64 tokens, which keeps scores and sums in the L2 cache
constexpr int kMinTileRows = 24;
constexpr int kTilesPerThread = 8;  // evens out what is handed to the threads

bool same(std::span<const KeyBlock> a, std::span<const KeyBlock> b) {
  return a.data() == b.data() && a.size() == b.size();
}

}  // namespace

// Of one tile and key head; one per thread, reused.
struct Attention::State {
  AlignedBuffer scores_buffer, weights_buffer, part_buffer, sum_buffer, item_buffer;
  const std::byte* queries = nullptr;
  std::array<float, kTileRows> max;
  std::array<float, kTileRows> weight;  // sum of the softmax weights
  float* sum = nullptr;                 // [rows, sum_width], weighted values
};

Attention::Attention(AttentionShape shape, ItemFormat items, bool by_products)
    : shape_(shape), by_products_(by_products), kernel_(attention_kernel(shape.dtype)), items_(std::move(items)) {}

std::vector<AttentionTile> Attention::tiles(const Batch& batch, int num_threads) const {
  const int share = batch.num_rows() * shape_.num_kv_heads / (kTilesPerThread * num_threads);
  const int max_rows =
      std::clamp(share, std::max(1, kMinTileRows / shape_.group()), std::max(1, kTileRows / shape_.group()));
  const std::span<const BatchSlice> slices = batch.slices;
  std::vector<AttentionTile> tiles;
  for (std::size_t s = 0; s < slices.size(); ++s) {
    const BatchSlice& slice = slices[s];
    const bool joins = s > 0 && same(slice.context, slices[s - 1].context);
    int row = slice.first_row;
    const int end = slice.first_row + slice.num_rows;
    if (joins && tiles.back().num_rows < max_rows) {
      AttentionTile& tile = tiles.back();
      const int taken = std::min(slice.num_rows, max_rows - tile.num_rows);
      tile.num_rows += taken;
      tile.slices = {tile.slices.data(), tile.slices.size() + 1};
      row += taken;
    }
    for (; row < end; row += max_rows) tiles.push_back({row, std::min(max_rows, end - row), slices.subspan(s, 1)});
  }
  return tiles;
}

void Attention::run(const AttentionTile& tile, int kv_head, const KvLayer& kv, const void* queries, float* out) const {
  thread_local State state;
  const int group = shape_.group();
  const int rows = tile.num_rows * group;
  state.queries =
      static_cast<const std::byte*>(queries) + static_cast<std::size_t>(tile.first_row * group) * query_bytes();
  state.max.fill(-std::numeric_limits<float>::infinity());
  state.weight.fill(0.0f);
  const auto size = static_cast<std::size_t>(rows) * sum_width();
  state.sum = state.sum_buffer.get<float>(size);
  std::fill_n(state.sum, size, 0.0f);

  std::array<int, kTileRows> valid;  // keys of the block that each query row may see
  for (const KeyBlock& block : tile.slices.front().context) {
    valid.fill(block.num_tokens);
    attend(state, 0, rows, kv, block.block, kv_head, valid, by_products_);
  }
  for (const BatchSlice& slice : tile.slices) {
    if (slice.item != nullptr) attend_item(state, tile, slice, kv.index, kv_head);
    attend_own(state, tile, slice, kv, kv_head);
  }
  write(state, tile, kv_head, out);
}

// The rows that the tile and the slice have in common meet the slice's item.
void Attention::attend_item(State& state, const AttentionTile& tile, const BatchSlice& slice, int layer,
                            int kv_head) const {
  const int group = shape_.group();
  const int begin = std::max(slice.first_row, tile.first_row);
  const int end = std::min(slice.first_row + slice.num_rows, tile.first_row + tile.num_rows);
  const int num_tokens = slice.item->num_tokens;
  std::array<int, kTileRows> valid;
  for (int block = 0; block * kBlockTokens < num_tokens; ++block) {
    valid.fill(std::min(num_tokens - block * kBlockTokens, kBlockTokens));
    const ItemFormat::Block found = items_.block(*slice.item, layer, block, kv_head, state.item_buffer);
    attend_by_kernel(state, (begin - tile.first_row) * group, (end - begin) * group, shape_.head_dim, found.keys,
                     found.values, valid);
  }
}

// The rows that the tile and the slice have in common meet the slice's own blocks, causally.
void Attention::attend_own(State& state, const AttentionTile& tile, const BatchSlice& slice, const KvLayer& kv,
                           int kv_head) const {
  const int group = shape_.group();
  const int begin = std::max(slice.first_row, tile.first_row);
  const int end = std::min(slice.first_row + slice.num_rows, tile.first_row + tile.num_rows);
  const auto own = [&](int row) { return slice.first_own_token + row - slice.first_row; };
  const bool by_products = by_products_ && !slice.decoding;
  std::array<int, kTileRows> valid;
  for (int block = 0; block * kBlockTokens <= own(end - 1); ++block) {
    const int first = std::max(begin, begin + block * kBlockTokens - own(begin));  // rows before see none of it
    for (int row = first; row < end; ++row) {
      const int seen = std::min(own(row) - block * kBlockTokens + 1, kBlockTokens);
      std::fill_n(valid.begin() + (row - first) * group, group, seen);
    }
    const BlockId id = slice.own_blocks[static_cast<std::size_t>(block)];
    attend(state, (first - tile.first_row) * group, (end - first) * group, kv, id, kv_head, valid, by_products);
  }
}

// Query rows [first, first + count) of the tile meet one block.
void Attention::attend(State& state, int first, int count, const KvLayer& kv, BlockId block, int kv_head,
                       std::span<const int> valid, bool by_products) const {
  const std::byte* keys = kv.keys(block, kv_head);
  const std::byte* values = kv.values(block, kv_head);
  if (by_products) return attend_by_products(state, first, count, keys, values, valid);
  attend_by_kernel(state, first, count, shape_.score_dim(), keys, values, valid);
}

void Attention::attend_by_kernel(State& state, int first, int count, int score_dim, const void* keys,
                                 const void* values, std::span<const int> valid) const {
  const auto row = static_cast<std::size_t>(first);
  const int panels = static_cast<int>(ceil_div(shape_.head_dim, kPanelColumns));
  kernel_({count, score_dim, shape_.score_dim(), panels, state.queries + row * query_bytes(), keys, values,
           valid.data(), &state.max[row], &state.weight[row], state.sum + row * sum_width()});
}

void Attention::attend_by_products(State& state, int first, int count, const std::byte* keys, const std::byte* values,
                                   std::span<const int> valid) const {
  const VectorKernels& kernels = vector_kernels();
  const DataType dtype = shape_.dtype;
  const auto dim = static_cast<std::size_t>(shape_.head_dim);
  const auto padded = static_cast<std::size_t>(padded_row_count(count));
  float* scores = state.scores_buffer.get<float>(padded * kBlockTokens);
  std::byte* weights = state.weights_buffer.get<std::byte>(padded * kBlockTokens * size_of(dtype));
  float* part = state.part_buffer.get<float>(padded * dim);  // [count, head_dim], this block's weighted values

  const std::byte* queries = state.queries + static_cast<std::size_t>(first) * query_bytes();
  matmul(queries, {keys, kBlockTokens, shape_.score_dim(), dtype}, scores, count);
  std::array<float, kTileRows> factors;
  for (int i = 0; i < count; ++i) {
    const auto row = static_cast<std::size_t>(first + i);
    const auto at = static_cast<std::size_t>(i);
    float* row_scores = scores + at * kBlockTokens;
    factors[at] = kernels.softmax_block(dtype, row_scores, valid[at], &state.max[row], &state.weight[row]);
    store(dtype, row_scores, kBlockTokens, weights + at * kBlockTokens * size_of(dtype));
  }
  matmul(weights, {values, shape_.head_dim, kBlockTokens, dtype}, part, count);
  for (int i = 0; i < count; ++i) {
    const auto row = static_cast<std::size_t>(first + i);
    const auto at = static_cast<std::size_t>(i);
    kernels.scale_add(state.sum + row * sum_width(), factors[at], part + at * dim, shape_.head_dim);
  }
}

void Attention::write(const State& state, const AttentionTile& tile, int kv_head, float* out) const {
  const int group = shape_.group();
  const auto dim = static_cast<std::size_t>(shape_.head_dim);
  const std::size_t row_size = static_cast<std::size_t>(shape_.num_heads) * dim;
  const std::size_t head_at = static_cast<std::size_t>(kv_head * group) * dim;
  for (int i = 0; i < tile.num_rows * group; ++i) {
    const auto row = static_cast<std::size_t>(i);
    const auto token = static_cast<std::size_t>(tile.first_row + i / group);
    float* to = out + token * row_size + head_at + static_cast<std::size_t>(i % group) * dim;
    vector_kernels().scale(state.sum + row * sum_width(), 1.0f / state.weight[row], shape_.head_dim, to);
  }
}

}  // namespace exp3rt
