#include "kvcache/item_cache.h"

#include <doctest/doctest.h>

#include <random>
#include <vector>

namespace exp3rt {
namespace {

ItemCache make(std::size_t max_bytes) {
  return ItemCache(max_bytes, [](int tokens) { return static_cast<std::size_t>(tokens) * 10; });
}

ItemCache::Key key(TokenId kind, int tokens, const std::string& salt = "") {
  return {salt, 100, {1, 2}, TokenIds(static_cast<std::size_t>(tokens), kind)};
}

void compute(ItemCache& cache, TokenId kind, int tokens) {
  auto lease = cache.acquire(key(kind, tokens));
  REQUIRE(lease);
  REQUIRE(lease->fresh());
  lease->destination()[0] = static_cast<std::byte>(kind);
  lease->mark_computed();
}

}  // namespace

TEST_CASE("item cache: an item is fresh once, then here, for the same salt and position") {
  ItemCache cache = make(1000);
  compute(cache, 7, 20);
  const auto again = cache.acquire(key(7, 20));
  CHECK_FALSE(again->fresh());
  CHECK(again->computed());
  CHECK(again->item()->data.get()[0] == std::byte{7});
  CHECK(again->item()->num_bytes == 200);
  CHECK(cache.acquire(key(7, 20, "tenant"))->fresh());
  ItemCache::Key elsewhere = key(7, 20);
  elsewhere.position = 200;
  CHECK(cache.acquire(elsewhere)->fresh());
  CHECK(cache.num_items() == 1);  // those that nobody computed are gone
  CHECK(cache.num_bytes() == 200);
}

TEST_CASE("item cache: the least recently used go, leased ones never") {
  ItemCache cache = make(500);
  compute(cache, 1, 20);
  compute(cache, 2, 20);
  const auto held = cache.acquire(key(1, 20));
  compute(cache, 3, 20);  // in the place of 2
  CHECK(cache.acquire(key(2, 20))->fresh());
  CHECK_FALSE(cache.acquire(key(1, 20))->fresh());
  CHECK_FALSE(cache.acquire(key(4, 31)));  // 310 beside the 200 that are held
  CHECK(cache.num_bytes() <= 500);
  CHECK_FALSE(cache.acquire(key(1, 20))->fresh());
}

TEST_CASE("item cache: bytes are counted right over random use") {
  std::mt19937 random(3);
  ItemCache cache = make(1000);
  std::vector<ItemCache::Lease> held;
  for (int i = 0; i < 20000; ++i) {
    if (random() % 3 == 0 && !held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      held.pop_back();
    } else if (auto lease =
                   cache.acquire(key(static_cast<TokenId>(random() % 12), 1 + static_cast<int>(random() % 3) * 10))) {
      if (lease->fresh() && random() % 4) lease->mark_computed();
      held.push_back(std::move(*lease));
    }
    REQUIRE(cache.num_bytes() <= 1000);
  }
  held.clear();
  cache.clear();
  CHECK(cache.num_bytes() == 0);
  CHECK(cache.num_items() == 0);
}

}  // namespace exp3rt
