#include "ops/attention.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "operand.h"

namespace exp3rt {
namespace {

std::size_t z(int n) { return static_cast<std::size_t>(n); }

// Three sequences behind one context of two blocks (the first part full), and one without a context; some of their
// tokens were computed before and only their last rows are in the batch.
struct Scene {
  explicit Scene(AttentionShape the_shape)
      : shape(the_shape),
        keys(1, 16 * kBlockTokens, shape.num_kv_heads * shape.head_dim, DataType::kFloat32),  // bf16 keeps them too
        values(2, 16 * kBlockTokens, shape.num_kv_heads * shape.head_dim, shape.dtype),
        kv{shape, nullptr, 0} {
    kv.block_stride = (kv.key_bytes() + kv.value_bytes()) * z(shape.num_kv_heads);
    kv.data = memory.get<std::byte>(kv.block_stride * 16);
    std::memset(kv.data, 0, kv.block_stride * 16);
    for (int token = 0; token < 16 * kBlockTokens; ++token) {
      for (int head = 0; head < shape.num_kv_heads; ++head) {
        const std::size_t at = z((token * shape.num_kv_heads + head) * shape.head_dim);
        kv.store(token / kBlockTokens, token % kBlockTokens, head, &keys.values[at], &values.values[at]);
      }
    }
    add(context, own_a, 0, 130);
    add(context, own_b, 70, 1);
    batch.slices.back().decoding = true;
    add(context, own_c, 3, 90);
    add({}, own_d, 0, 5);
    batch.tokens.resize(z(num_rows));
  }

  void add(std::span<const KeyBlock> shared, std::span<const BlockId> own, int first_own, int rows) {
    batch.slices.push_back({num_rows, rows, first_own, shared, own});
    num_rows += rows;
  }

  // Tokens (in `keys` and `values`) that a row sees.
  std::vector<int> seen(const BatchSlice& slice, int row) const {
    std::vector<int> out;
    for (const KeyBlock& block : slice.context) {
      for (int i = 0; i < block.num_tokens; ++i) out.push_back(block.block * kBlockTokens + i);
    }
    const int own = slice.first_own_token + row - slice.first_row;
    for (int i = 0; i <= own; ++i)
      out.push_back(slice.own_blocks[z(i / kBlockTokens)] * kBlockTokens + i % kBlockTokens);
    return out;
  }

  AttentionShape shape;
  RandomMatrix keys, values;
  AlignedBuffer memory;
  KvLayer kv;
  std::vector<KeyBlock> context = {{5, 20}, {2, 64}};
  std::vector<BlockId> own_a = {0, 7, 3}, own_b = {1, 4}, own_c = {6, 8}, own_d = {9};
  Batch batch;
  int num_rows = 0;
};

std::vector<float> run(const Scene& scene, const Batch& batch, const std::vector<const RandomMatrix*>& queries,
                       bool by_products) {
  const AttentionShape& shape = scene.shape;
  const Attention attention(shape, by_products);
  const std::size_t width = z(shape.num_heads * shape.head_dim);
  AlignedBuffer out_buffer;
  float* out = out_buffer.get<float>(z(scene.num_rows) * width);
  const std::size_t query_bytes = z(shape.score_dim()) * size_of(shape.dtype);
  for (int head = 0; head < shape.num_kv_heads; ++head) {
    const RandomMatrix& q = *queries[z(head)];
    AlignedBuffer stored_buffer;
    auto* stored = stored_buffer.get<std::byte>(z(q.rows + kMaxProductRows) * query_bytes);
    for (int row = 0; row < q.rows; ++row)
      shape.store_query(&q.values[z(row * q.columns)], stored + z(row) * query_bytes);
    for (const AttentionTile& tile : attention.tiles(batch, 1)) attention.run(tile, head, scene.kv, stored, out);
  }
  return {out, out + z(scene.num_rows) * width};
}

double worst_difference(const Scene& scene, const std::vector<RandomMatrix>& queries, const std::vector<float>& out) {
  const AttentionShape& shape = scene.shape;
  double worst = 0;
  for (const BatchSlice& slice : scene.batch.slices) {
    for (int row = slice.first_row; row < slice.first_row + slice.num_rows; ++row) {
      const std::vector<int> tokens = scene.seen(slice, row);
      for (int head = 0; head < shape.num_heads; ++head) {
        const int at = head / shape.group() * shape.head_dim;
        std::vector<double> weights;
        double total = 0;
        for (const int token : tokens) {
          double score = 0;
          for (int d = 0; d < shape.head_dim; ++d) {
            const float q = queries[z(head / shape.group())].at(row * shape.group() + head % shape.group(), d);
            score += static_cast<double>(q) * static_cast<double>(scene.keys.at(token, at + d));
          }
          weights.push_back(std::exp2(score));
          total += weights.back();
        }
        for (int d = 0; d < shape.head_dim; ++d) {
          double sum = 0;
          for (std::size_t i = 0; i < tokens.size(); ++i) {
            sum += weights[i] / total * static_cast<double>(scene.values.at(tokens[i], at + d));
          }
          const float got = out[z((row * shape.num_heads + head) * shape.head_dim + d)];
          worst = std::max(worst, std::fabs(sum - static_cast<double>(got)));
        }
      }
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("attention: equals softmax(q k) v, in powers of two, over the context and the sequence's own past") {
  for (const DataType dtype : product_types()) {
    for (const AttentionShape shape :
         {AttentionShape{6, 2, 64, dtype}, {4, 4, 16, dtype}, {8, 1, 128, dtype}, {9, 3, 24, dtype}}) {
      const Scene scene(shape);
      std::vector<RandomMatrix> queries;
      queries.reserve(z(shape.num_kv_heads));
      std::vector<const RandomMatrix*> pointers;
      for (int head = 0; head < shape.num_kv_heads; ++head) {
        queries.emplace_back(10 + static_cast<unsigned>(head), scene.num_rows * shape.group(), shape.head_dim, dtype);
        pointers.push_back(&queries.back());
      }
      for (const bool by_products : {false, true}) {
        CHECK(worst_difference(scene, queries, run(scene, scene.batch, pointers, by_products)) <
              (dtype == DataType::kFloat32 ? 3e-5 : 5e-2));
      }
    }
  }
}

TEST_CASE("attention: tiles cover every row once, and join sequences that share a context") {
  const AttentionShape shape{6, 2, 64, DataType::kFloat32};
  const Scene scene(shape);
  const std::vector<AttentionTile> tiles = Attention(shape).tiles(scene.batch, 1);
  int row = 0;
  std::size_t joined = 0;
  for (const AttentionTile& tile : tiles) {
    CHECK(tile.first_row == row);
    CHECK(tile.num_rows <= 64);
    row += tile.num_rows;
    joined = std::max(joined, tile.slices.size());
  }
  CHECK(row == scene.num_rows);
  CHECK(joined == 3);
}

}  // namespace exp3rt
