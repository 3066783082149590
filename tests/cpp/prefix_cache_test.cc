#include "kvcache/prefix_cache.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <list>
#include <random>
#include <vector>

namespace exp3rt {
namespace {

TokenIds iota(TokenId first, int count) {
  TokenIds tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(first + i);
  return tokens;
}

void compute_all(PrefixCache::Lease& lease) {
  for (const auto& run : lease.pending()) lease.mark_computed(run);
}

std::vector<BlockId> ids(const PrefixCache::Lease& lease) {
  std::vector<BlockId> out;
  for (const KeyBlock& block : lease.blocks()) out.push_back(block.block);
  return out;
}

// What a candidate does: computes the blocks of a suffix that are not there, and hands them over.
void keep(BlockPool& pool, PrefixCache& cache, const PrefixCache::Lease& prefix, const TokenIds& suffix) {
  const PrefixCache::Lease found = cache.extend(prefix, suffix);
  const int num_found = static_cast<int>(found.blocks().size() - prefix.blocks().size());
  const int missing = static_cast<int>(suffix.size()) / kBlockTokens - num_found;
  if (!cache.reserve(missing)) return;
  std::vector<BlockPool::Block> blocks;
  for (int i = 0; i < missing; ++i) blocks.push_back(pool.allocate());
  cache.keep_suffix(prefix, suffix, num_found, blocks);
}

}  // namespace

TEST_CASE("block pool: blocks are unique, come back when dropped, and the last freed is reused first") {
  BlockPool pool(3);
  BlockPool::Block a = pool.allocate();
  BlockPool::Block b = pool.allocate();
  CHECK(a.id() != b.id());
  const BlockId freed = b.id();
  b = BlockPool::Block();
  CHECK(pool.num_free() == 2);
  CHECK(pool.allocate().id() == freed);
  const BlockPool::Block c = std::move(a);
  const BlockPool::Block d = pool.allocate();
  const BlockPool::Block e = pool.allocate();
  CHECK_THROWS_AS(pool.allocate(), std::bad_alloc);
}

TEST_CASE("prefix cache: segments start fresh blocks, and part-full blocks are found again") {
  BlockPool pool(10);
  PrefixCache cache(pool);
  const TokenIds instructions = iota(0, 70), user = iota(1000, 5);
  std::vector<BlockId> first;
  {
    auto lease = cache.acquire({instructions, user});
    REQUIRE(lease);
    CHECK(lease->num_tokens() == 75);
    REQUIRE(lease->blocks().size() == 3);
    CHECK(lease->blocks()[1].num_tokens == 6);
    CHECK(lease->blocks()[2].num_tokens == 5);
    REQUIRE(lease->pending().size() == 2);
    CHECK(lease->pending()[0].num_blocks == 2);
    CHECK(lease->pending()[0].tokens == instructions);
    CHECK(lease->pending()[1].position == 70);
    CHECK_FALSE(lease->computed_up_to(1));
    lease->mark_computed(lease->pending()[0]);
    CHECK(lease->computed_up_to(2));
    CHECK_FALSE(lease->computed_up_to(3));
    lease->mark_computed(lease->pending()[1]);
    first = ids(*lease);
  }
  CHECK(cache.num_cached() == 3);
  auto again = cache.acquire({instructions, user});
  REQUIRE(again);
  CHECK(again->pending().empty());
  CHECK(ids(*again) == first);
  auto other_user = cache.acquire({instructions, iota(2000, 64)});
  REQUIRE(other_user);
  REQUIRE(other_user->pending().size() == 1);
  CHECK(other_user->pending()[0].first_block == 2);
  CHECK(other_user->blocks()[0].block == first[0]);
}

TEST_CASE("prefix cache: a second group finds what the first has not computed yet, and knows it is not ready") {
  BlockPool pool(4);
  PrefixCache cache(pool);
  auto first = cache.acquire({iota(0, 10)});
  auto second = cache.acquire({iota(0, 10)});
  REQUIRE(second);
  CHECK(second->pending().empty());
  CHECK_FALSE(second->computed_up_to(1));
  first->mark_computed(first->pending()[0]);
  CHECK(second->computed_up_to(1));
}

TEST_CASE("prefix cache: least recently used leaves go first, leased blocks never") {
  BlockPool pool(3);
  PrefixCache cache(pool);
  {
    auto a = cache.acquire({iota(0, 1)});
    compute_all(*a);
  }
  {
    auto b = cache.acquire({iota(1, 1)});
    compute_all(*b);
  }
  {
    auto a = cache.acquire({iota(0, 1)});
    CHECK(a->pending().empty());
  }  // b is now the older
  auto held = cache.acquire({iota(2, 1)});
  compute_all(*held);
  CHECK(cache.reserve(1));
  {
    auto a = cache.acquire({iota(0, 1)});
    CHECK(a->pending().empty());
  }
  CHECK_FALSE(cache.reserve(3));
  CHECK_FALSE(cache.acquire({iota(10, 3 * kBlockTokens)}));
  CHECK(held->blocks().size() == 1);
  cache.clear();
  CHECK(pool.num_free() == 2);
  CHECK(cache.num_leased() == 1);
}

TEST_CASE("prefix cache: an empty prefix is a lease on nothing") {
  BlockPool pool(1);
  PrefixCache cache(pool);
  auto lease = cache.acquire({});
  REQUIRE(lease);
  CHECK(lease->num_tokens() == 0);
  auto with_empty_segment = cache.acquire({{}, iota(0, 3), {}});
  REQUIRE(with_empty_segment);
  CHECK(with_empty_segment->blocks().size() == 1);
}

TEST_CASE("prefix cache: suffixes are found below their prefix, and never stand for a prefix") {
  BlockPool pool(8);
  PrefixCache cache(pool);
  const TokenIds suffix = iota(500, 2 * kBlockTokens);
  auto prefix = cache.acquire({iota(0, 5)});
  compute_all(*prefix);
  CHECK(cache.extend(*prefix, suffix).blocks().size() == 1);
  keep(pool, cache, *prefix, suffix);
  CHECK(cache.num_cached() == 2);
  CHECK(cache.extend(*prefix, suffix).num_tokens() == 5 + 2 * kBlockTokens);
  CHECK(cache.extend(*prefix, std::span(suffix).first(2 * kBlockTokens - 1)).blocks().size() == 2);
  CHECK(cache.extend(*cache.acquire({iota(9, 5)}), suffix).blocks().size() == 1);  // another's
  const auto longer = cache.acquire({iota(0, 5), suffix});
  CHECK(longer->pending().size() == 1);  // computed at another width, so computed again
  CHECK(cache.num_cached() == 3);
}

TEST_CASE("prefix cache: other salts, other blocks, from the first to the last") {
  BlockPool pool(30);
  PrefixCache cache(pool);
  const std::vector<TokenIds> prefix = {iota(0, 40), iota(1000, 5)};
  const TokenIds suffix = iota(500, 2 * kBlockTokens);
  for (const auto& segments : {prefix, std::vector<TokenIds>{}}) {
    for (const char* salt : {"", "a", "b"}) {
      auto lease = cache.acquire(segments, salt);
      REQUIRE(lease);
      CHECK(lease->pending().size() == segments.size());
      compute_all(*lease);
      CHECK(cache.extend(*lease, suffix).num_tokens() == lease->num_tokens());
      keep(pool, cache, *lease, suffix);
      const auto again = cache.acquire(segments, salt);
      REQUIRE(again);
      CHECK(again->pending().empty());
      CHECK(ids(*again) == ids(*lease));
      CHECK(cache.extend(*again, suffix).num_tokens() == lease->num_tokens() + 2 * kBlockTokens);
    }
  }
  CHECK(pool.num_free() + cache.num_cached() == 30);
}

TEST_CASE("prefix cache: two candidates that computed the same suffix keep it once, and it goes leaves first") {
  BlockPool pool(5);
  PrefixCache cache(pool);
  const TokenIds suffix = iota(500, 2 * kBlockTokens);
  {
    auto prefix = cache.acquire({{1}});
    compute_all(*prefix);
    std::vector<BlockPool::Block> first, second;
    for (auto* blocks : {&first, &second}) {
      for (int i = 0; i < 2; ++i) blocks->push_back(pool.allocate());
    }
    cache.keep_suffix(*prefix, suffix, 0, first);
    cache.keep_suffix(*prefix, suffix, 0, second);
    CHECK(cache.num_cached() == 2);
    CHECK(pool.num_free() == 0);  // `second` is still the caller's
    CHECK_FALSE(cache.reserve(3));
    REQUIRE(cache.reserve(1));
    CHECK(cache.extend(*prefix, suffix).num_tokens() == 1 + kBlockTokens);
  }
  CHECK(cache.reserve(5));
}

// Random leases, sequences' own blocks, reservations and clears; after every step the blocks add up, no block is held
// twice, and what is found again is what was computed.
TEST_CASE("prefix cache: free + cached + in use = total, whatever happens") {
  std::mt19937 random(7);
  const auto pick = [&random](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  for (int round = 0; round < 60; ++round) {
    const int total = 1 + pick(40);
    BlockPool pool(total);
    PrefixCache cache(pool);
    std::list<PrefixCache::Lease> leases;
    std::list<BlockPool::Block> owned;
    for (int i = 0; i < 300; ++i) {
      switch (pick(8)) {
        case 0:
        case 1: {
          std::vector<TokenIds> segments;
          for (int s = pick(3); s >= 0; --s) segments.push_back(iota(100 * pick(4), 1 + pick(150)));
          const int free_before = pool.num_free();
          auto lease = cache.acquire(segments);
          if (!lease) {
            CHECK(pool.num_free() == free_before);
            break;
          }
          compute_all(*lease);
          leases.push_back(std::move(*lease));
          break;
        }
        case 2:
          if (!leases.empty()) leases.erase(std::next(leases.begin(), pick(static_cast<int>(leases.size()))));
          break;
        case 3:
          if (cache.reserve(1)) owned.push_back(pool.allocate());
          break;
        case 4:
          if (!owned.empty()) owned.pop_front();
          break;
        case 5:
          if (pick(20) == 0) cache.clear();
          break;
        default: {
          if (leases.empty()) break;
          const auto& prefix = *std::next(leases.begin(), pick(static_cast<int>(leases.size())));
          const TokenIds suffix = iota(100 * pick(3), kBlockTokens * pick(4));
          keep(pool, cache, prefix, suffix);
          if (pick(2)) leases.push_back(cache.extend(prefix, suffix));
        }
      }
      REQUIRE(pool.num_free() + cache.num_cached() + cache.num_leased() + static_cast<int>(owned.size()) == total);
      std::vector<int> holders(static_cast<std::size_t>(total), 0);
      for (const auto& block : owned) ++holders[static_cast<std::size_t>(block.id())];
      for (const int count : holders) REQUIRE(count <= 1);
      for (const auto& lease : leases) {
        for (const KeyBlock& block : lease.blocks()) REQUIRE(holders[static_cast<std::size_t>(block.block)] == 0);
        REQUIRE(lease.computed_up_to(static_cast<int>(lease.blocks().size())));
      }
    }
    leases.clear();
    owned.clear();
    REQUIRE(cache.num_leased() == 0);
    cache.clear();
    REQUIRE(pool.num_free() == total);
  }
}

}  // namespace exp3rt
