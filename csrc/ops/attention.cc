#include "ops/attention.h"

#include <algorithm>
#include <array>

#include "ops/aligned_buffer.h"
#include "ops/vector_kernels.h"

namespace exp3rt {
namespace {

constexpr int kMaxQueryRows = 192;  // of a tile: three heads of 64 tokens, which keeps their sums in the L2 cache
constexpr int kMinQueryRows = 24;
constexpr float kLowest = -1e29f;   // maximum of no scores; finite, so that its difference to any score is a number
constexpr int kTilesPerThread = 8;  // evens out what is handed to the threads

std::size_t z(int n) { return static_cast<std::size_t>(n); }

// Collects blocks until there are as many as one step takes.
class FewBlocks {
 public:
  void add(TileBlock block) { blocks_[z(size_++)] = block; }
  bool full() const { return size_ == kMaxStepBlocks; }
  int size() const { return size_; }
  std::span<const TileBlock> take() { return {blocks_.data(), z(std::exchange(size_, 0))}; }

 private:
  std::array<TileBlock, kMaxStepBlocks> blocks_;
  int size_ = 0;
};

bool same(std::span<const KeyBlock> a, std::span<const KeyBlock> b) {
  return a.data() == b.data() && a.size() == b.size();
}

}  // namespace

// Of one tile and key head; one per thread, reused.
struct Attention::State {
  AlignedBuffer sum_buffer;
  std::array<AlignedBuffer, kMaxStepBlocks> item_buffers;
  const std::byte* queries = nullptr;
  std::array<float, kMaxQueryRows> max;
  std::array<float, kMaxQueryRows> weight;  // sum of the softmax weights
  float* sum = nullptr;                     // [rows, sum_width], weighted values
};

Attention::Attention(AttentionShape shape, ItemFormat items, bool by_tiles)
    : shape_(shape), by_tiles_(by_tiles), kernel_(attention_kernel(shape.dtype)), items_(std::move(items)) {}

std::vector<AttentionTile> Attention::tiles(const Batch& batch, int num_threads) const {
  const int share = batch.num_rows() * shape_.num_kv_heads / (kTilesPerThread * num_threads);
  const int max_rows =
      std::clamp(share, std::max(1, kMinQueryRows / shape_.group()), std::max(1, kMaxQueryRows / shape_.group()));
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
  state.max.fill(kLowest);
  state.weight.fill(0.0f);
  const auto size = static_cast<std::size_t>(rows) * sum_width();
  state.sum = state.sum_buffer.get<float>(size);
  std::fill_n(state.sum, size, 0.0f);

  attend_context(state, tile, kv, kv_head);
  for (const BatchSlice& slice : tile.slices) {
    if (slice.item != nullptr) attend_item(state, tile, slice, kv.index, kv_head);
    attend_own(state, tile, slice, kv, kv_head);
  }
  write(state, tile, kv_head, out);
}

void Attention::attend_context(State& state, const AttentionTile& tile, const KvLayer& kv, int kv_head) const {
  const Rows rows{0, tile.num_rows * shape_.group()};
  FewBlocks few;
  for (const KeyBlock& block : tile.slices.front().context) {
    few.add({kv.keys(block.block, kv_head), kv.values(block.block, kv_head), block.num_tokens});
    const bool last = &block == &tile.slices.front().context.back();
    if (!few.full() && !last) continue;
    const TileAhead ahead = last ? item_step(tile.slices.front(), kv.index, kv_head, 0) : TileAhead();
    attend(state, rows, shape_.key_dim(), few.take(), nullptr, ahead);
  }
}

// The blocks of a slice's item that one step takes from this one on, none where it has no more. They come from memory, each for a
// few rows alone, and are asked for a step ahead.
TileAhead Attention::item_step(const BatchSlice& slice, int layer, int kv_head, int first_block) const {
  TileAhead step;
  const int num_tokens = slice.item != nullptr ? slice.item->num_tokens : 0;
  for (int block = first_block; step.num_pieces < kMaxStepBlocks && block * kBlockTokens < num_tokens; ++block) {
    const std::span<const std::byte> piece = items_.memory(*slice.item, layer, block, kv_head);
    step.pieces[step.num_pieces++] = piece.data();
    step.piece_bytes = static_cast<int>(piece.size());
  }
  return step;
}

// The rows that the tile and the slice have in common meet the slice's item.
void Attention::attend_item(State& state, const AttentionTile& tile, const BatchSlice& slice, int layer,
                            int kv_head) const {
  const Rows rows = common_rows(tile, slice);
  const int num_tokens = slice.item->num_tokens;
  FewBlocks few;
  for (int block = 0; block * kBlockTokens < num_tokens; ++block) {
    const ItemFormat::Block found = items_.block(*slice.item, layer, block, kv_head, state.item_buffers[z(few.size())]);
    few.add({found.keys, found.values, std::min(num_tokens - block * kBlockTokens, kBlockTokens)});
    const bool last = (block + 1) * kBlockTokens >= num_tokens;
    if (!few.full() && !last) continue;
    const BatchSlice* next = !last ? &slice : &slice != &tile.slices.back() ? &slice + 1 : nullptr;
    const TileAhead ahead = next ? item_step(*next, layer, kv_head, last ? 0 : block + 1) : TileAhead();
    attend(state, rows, shape_.head_dim, few.take(), nullptr, ahead);
  }
}

// The rows that the tile and the slice have in common meet the slice's own blocks, causally.
void Attention::attend_own(State& state, const AttentionTile& tile, const BatchSlice& slice, const KvLayer& kv,
                           int kv_head) const {
  const int group = shape_.group();
  const Rows rows = common_rows(tile, slice);
  const int first_row = tile.first_row + rows.first / group;
  const int first_own = slice.first_own_token + first_row - slice.first_row;
  const int num_tokens = first_own + rows.count / group;  // that the last row sees
  const int key_dim = slice.writing ? shape_.head_dim : shape_.key_dim();
  std::array<int, kMaxQueryRows> seen;
  FewBlocks few;
  for (int block = 0; block * kBlockTokens < num_tokens; ++block) {
    const BlockId id = slice.own_blocks[z(block)];
    few.add({kv.keys(id, kv_head), kv.values(id, kv_head), kBlockTokens});
    if (!few.full() && (block + 1) * kBlockTokens < num_tokens) continue;
    const int passed = (block + 1 - few.size()) * kBlockTokens;
    for (int i = 0; i < rows.count; ++i) seen[z(i)] = first_own + i / group + 1 - passed;
    attend(state, rows, key_dim, few.take(), seen.data());
  }
}

Attention::Rows Attention::common_rows(const AttentionTile& tile, const BatchSlice& slice) const {
  const int begin = std::max(slice.first_row, tile.first_row);
  const int end = std::min(slice.first_row + slice.num_rows, tile.first_row + tile.num_rows);
  return {(begin - tile.first_row) * shape_.group(), (end - begin) * shape_.group()};
}

// Query rows meet a few blocks. seen: how many of their slots, 64 a block, each row may see; null: all.
void Attention::attend(State& state, Rows rows, int key_dim, std::span<const TileBlock> blocks, const int* seen,
                       const TileAhead& ahead) const {
  if (by_tiles_) {
    attend_by_tiles(state, rows, key_dim, blocks, seen, ahead);
  } else {
    attend_by_vectors(state, rows, key_dim, blocks, seen);
  }
}

void Attention::attend_by_tiles(State& state, Rows rows, int key_dim, std::span<const TileBlock> blocks,
                                const int* seen, const TileAhead& ahead) const {
  const std::size_t row = z(rows.first);
  attend_tiles({rows.count, shape_.head_dim, key_dim, value_panels(), state.queries + row * query_bytes(),
                blocks.data(), static_cast<int>(blocks.size()), seen, &state.max[row], &state.weight[row],
                state.sum + row * sum_width(), ahead});
}

// One block at a time, for the rows that see any of it: those behind the first that does.
void Attention::attend_by_vectors(State& state, Rows rows, int key_dim, std::span<const TileBlock> blocks,
                                  const int* seen) const {
  std::array<int, kMaxQueryRows> valid;
  for (std::size_t block = 0; block < blocks.size(); ++block) {
    const int passed = static_cast<int>(block) * kBlockTokens;
    int first = 0;
    while (seen && seen[first] <= passed) ++first;
    for (int i = first; i < rows.count; ++i) {
      valid[z(i)] = std::min(seen ? seen[i] - passed : kBlockTokens, blocks[block].num_tokens);
    }
    const std::size_t row = z(rows.first + first);
    const void* next = block + 1 < blocks.size() ? blocks[block + 1].keys : nullptr;
    kernel_({rows.count - first, shape_.head_dim, key_dim, value_panels(), state.queries + row * query_bytes(),
             blocks[block].keys, blocks[block].values, next, &valid[z(first)], &state.max[row], &state.weight[row],
             state.sum + row * sum_width()});
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
