#include "ops/attention.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "operand.h"

namespace exp3rt {
namespace {

std::size_t z(int n) { return static_cast<std::size_t>(n); }

void store(const KvLayer& kv, BlockId block, int slot, int head, const float* key, const float* value) {
  kv.store_key(block, slot, head, key);
  kv.store_value(block, slot, head, value);
}

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
        store(kv, token / kBlockTokens, token % kBlockTokens, head, &keys.values[at], &values.values[at]);
      }
    }
    add(context, own_a, 0, 130);
    add(context, own_b, 70, 1);
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
    if (slice.item != nullptr) {
      for (int i = 0; i < slice.item->num_tokens; ++i) out.push_back(item_blocks[0] * kBlockTokens + i);
    }
    const int own = slice.first_own_token + row - slice.first_row;
    for (int i = 0; i <= own; ++i)
      out.push_back(slice.own_blocks[z(i / kBlockTokens)] * kBlockTokens + i % kBlockTokens);
    return out;
  }

  // The second and the third sequence see an item of 90 tokens, kept in this type.
  void give_item(DataType dtype) {
    const ItemFormat format(shape, 1, dtype);
    const std::size_t bytes = format.num_bytes(90);
    auto* to = item_memory.get<std::byte>(bytes);
    format.store(kv, item_blocks, 90, to);
    item = {{std::shared_ptr<void>(), to}, bytes, 90};  // owned by item_memory
    batch.slices[1].item = batch.slices[2].item = &item;
  }

  AttentionShape shape;
  RandomMatrix keys, values;
  AlignedBuffer memory, item_memory;
  KvLayer kv;
  std::vector<KeyBlock> context = {{5, 20}, {2, 64}};
  std::vector<BlockId> own_a = {0, 7, 3}, own_b = {1, 4}, own_c = {6, 8}, own_d = {9}, item_blocks = {10, 11};
  ItemKv item;
  Batch batch;
  int num_rows = 0;
};

std::vector<float> run(const Scene& scene, const Batch& batch, const std::vector<const RandomMatrix*>& queries,
                       bool by_tiles, DataType item_dtype) {
  const AttentionShape& shape = scene.shape;
  const Attention attention(shape, ItemFormat(shape, 1, item_dtype), by_tiles);
  const std::size_t width = z(shape.num_heads * shape.head_dim);
  AlignedBuffer out_buffer;
  float* out = out_buffer.get<float>(z(scene.num_rows) * width);
  const std::size_t query_bytes = z(shape.head_dim) * size_of(shape.dtype);
  for (int head = 0; head < shape.num_kv_heads; ++head) {
    const RandomMatrix& q = *queries[z(head)];
    AlignedBuffer stored_buffer;
    auto* stored = stored_buffer.get<std::byte>(z(q.rows) * query_bytes);
    for (int row = 0; row < q.rows; ++row)
      store(shape.dtype, &q.values[z(row * q.columns)], shape.head_dim, stored + z(row) * query_bytes);
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

// Whether by tiles: not, and where this machine has them both.
std::vector<bool> ways(AttentionShape shape) {
  return Attention::has_tiles(shape) ? std::vector{false, true} : std::vector{false};
}

}  // namespace

TEST_CASE("attention: the tokens of a reasoning meet their own sequence's keys without what rounding lost") {
  const AttentionShape shape{6, 2, 64, compute_type(DataType::kBFloat16)};
  Scene writing(shape), rounded(shape);
  writing.batch.slices[1].writing = true;
  std::vector<float> key(64);
  for (const BlockId block : rounded.own_b) {
    for (int slot = 0; slot < kBlockTokens; ++slot) {
      for (int head = 0; head < shape.num_kv_heads; ++head) {
        const int token = block * kBlockTokens + slot;
        for (int d = 0; d < 64; ++d) {
          const float value = rounded.keys.at(token, head * 64 + d);
          key[z(d)] = shape.dtype == DataType::kBFloat16 ? to_float(to_bfloat16(value)) : value;
        }
        rounded.kv.store_key(block, slot, head, key.data());
      }
    }
  }
  const RandomMatrix queries(10, writing.num_rows * shape.group(), shape.head_dim, shape.dtype);
  for (const bool by_tiles : ways(shape)) {
    CHECK(run(writing, writing.batch, {&queries, &queries}, by_tiles, shape.dtype) ==
          run(rounded, rounded.batch, {&queries, &queries}, by_tiles, shape.dtype));
  }
}

TEST_CASE("attention: equals softmax(q k) v, in powers of two, over the context and the sequence's own past") {
  for (const DataType dtype : product_types()) {
    for (const AttentionShape shape : {AttentionShape{6, 2, 64, dtype},
                                       {4, 4, 32, dtype},
                                       {4, 4, 16, dtype},
                                       {8, 1, 128, dtype},
                                       {9, 3, 24, dtype}}) {
      const Scene scene(shape);
      std::vector<RandomMatrix> queries;
      queries.reserve(z(shape.num_kv_heads));
      std::vector<const RandomMatrix*> pointers;
      for (int head = 0; head < shape.num_kv_heads; ++head) {
        queries.emplace_back(10 + static_cast<unsigned>(head), scene.num_rows * shape.group(), shape.head_dim, dtype);
        pointers.push_back(&queries.back());
      }
      for (const bool by_tiles : ways(shape)) {
        CHECK(worst_difference(scene, queries, run(scene, scene.batch, pointers, by_tiles, dtype)) <
              (dtype == DataType::kFloat32 ? 3e-5 : 5e-2));
      }
    }
  }
}

TEST_CASE("attention: a key that is not a number is noticed by the rows that see it, and by no other") {
  for (const DataType dtype : product_types()) {
    const AttentionShape shape{6, 2, 64, dtype};
    Scene scene(shape);
    std::vector<float> key(64, 1.0f);
    key[5] = std::numeric_limits<float>::quiet_NaN();
    for (int head = 0; head < 2; ++head) {
      store(scene.kv, 9, 3, head, key.data(), &scene.values.values[0]);  // seen by the last two rows
      store(scene.kv, 9, 9, head, key.data(), &scene.values.values[0]);  // by none
    }
    const RandomMatrix queries(10, scene.num_rows * 3, 64, dtype);
    for (const bool by_tiles : ways(shape)) {
      const std::vector<float> out = run(scene, scene.batch, {&queries, &queries}, by_tiles, dtype);
      for (int row = 0; row < scene.num_rows; ++row) {
        CHECK(std::isnan(out[z(row * 6 * 64)]) == (row >= scene.num_rows - 2));
      }
    }
  }
}

TEST_CASE("attention: an item stands between the context and the sequence's own past") {
  for (const DataType dtype : product_types()) {
    for (const DataType kept : {dtype, DataType::kInt8}) {
      for (const AttentionShape shape : {AttentionShape{6, 2, 64, dtype}, {8, 1, 128, dtype}, {9, 3, 24, dtype}}) {
        Scene scene(shape);
        scene.give_item(kept);
        std::vector<RandomMatrix> queries;
        queries.reserve(z(shape.num_kv_heads));
        std::vector<const RandomMatrix*> pointers;
        for (int head = 0; head < shape.num_kv_heads; ++head) {
          queries.emplace_back(10 + static_cast<unsigned>(head), scene.num_rows * shape.group(), shape.head_dim, dtype);
          pointers.push_back(&queries.back());
        }
        for (const bool by_tiles : ways(shape)) {
          const double worst = worst_difference(scene, queries, run(scene, scene.batch, pointers, by_tiles, kept));
          CHECK(worst < (kept == DataType::kFloat32 ? 3e-5 : 0.25));
        }
      }
    }
  }
}

TEST_CASE("item format: what is behind the last token is zero, and a number that is none is noticed") {
  Scene scene({6, 2, 64, DataType::kFloat32});
  for (const DataType kept : {DataType::kFloat32, DataType::kInt8}) {
    const ItemFormat format(scene.shape, 1, kept);
    CHECK(format.num_bytes(64) * 2 == format.num_bytes(65));
    const std::size_t bytes = format.num_bytes(70);
    std::vector<std::byte> first(bytes, std::byte{1}), second(bytes, std::byte{2});
    for (int token = 6; token < kBlockTokens; ++token) {
      const std::vector<float> other(64, 1e30f);
      const std::vector<float> zero(64, 0.0f);
      for (int head = 0; head < 2; ++head) store(scene.kv, 11, token, head, other.data(), zero.data());
    }
    Scene untouched({6, 2, 64, DataType::kFloat32});
    for (int token = 6; token < kBlockTokens; ++token) {
      const std::vector<float> zero(64, 0.0f);
      for (int head = 0; head < 2; ++head) store(untouched.kv, 11, token, head, zero.data(), zero.data());
    }
    format.store(scene.kv, std::vector<BlockId>{10, 11}, 70, first.data());
    format.store(untouched.kv, std::vector<BlockId>{10, 11}, 70, second.data());
    CHECK(first == second);
  }
  const ItemFormat format(scene.shape, 1, DataType::kInt8);
  std::vector<float> key(64, 1.0f);
  key[3] = std::numeric_limits<float>::quiet_NaN();
  store(scene.kv, 10, 0, 0, key.data(), key.data());
  AlignedBuffer memory, scratch;
  auto* to = memory.get<std::byte>(format.num_bytes(5));
  format.store(scene.kv, std::vector<BlockId>{10}, 5, to);
  const ItemKv item{std::shared_ptr<const std::byte>(to, [](const std::byte*) {}), format.num_bytes(5), 5};
  const auto* keys = static_cast<const float*>(format.block(item, 0, 0, 0, scratch).keys);
  CHECK(std::isnan(keys[offset_in_panel(DataType::kFloat32, 3, 4)]));
  CHECK(std::isfinite(keys[offset_in_panel(DataType::kFloat32, 2, 4)]));
}

TEST_CASE("attention: tiles cover every row once, and join sequences that share a context") {
  const AttentionShape shape{6, 2, 64, DataType::kFloat32};
  const Scene scene(shape);
  const Attention attention(shape, ItemFormat(shape, 1, shape.dtype));
  const std::vector<AttentionTile> tiles = attention.tiles(scene.batch, 1);
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
