#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/batch.h"
#include "kvcache/block_pool.h"

namespace exp3rt {

// Prefixes whose keys and values are kept: a radix tree whose every node is one block of tokens.
//
// Contract:
//  - A prompt's segments are cut into blocks each on its own, so a segment's last block may be part full and the next
//    segment starts a fresh one: nothing is recomputed because a prefix does not fill its blocks.
//  - `acquire` returns a lease on the whole chain, or nothing (and changes nothing) when there is no room. What was
//    not cached is inserted at once, so that a second group with the same prefix finds it; whoever holds the lease
//    that inserted it must compute it (`pending`), in order, and call `mark_computed`.
//  - Below a prefix lie suffixes: whole blocks that a candidate computed and handed over with `keep_suffix`; the last
//    tokens, which fill no block, are not kept. `extend` finds them again. Prefixes and suffixes never stand for each
//    other, whatever their tokens: a bf16 engine computes them at different widths (core/batch.h).
//  - Chains of different salts share nothing, so that nobody can tell from the time taken what another tenant asked.
//  - A node in any live lease is never evicted. Others go least recently used first, leaves before parents.
//  - free + cached + in use = total, after every call.
// Not thread-safe. Outlives its leases.
class PrefixCache {
  struct Node;
  struct Key;

 public:
  // Tokens of one segment that the lease's holder has to compute into its blocks first_block, ...
  struct Run {
    int first_block;
    int num_blocks;
    int position;  // of the first token
    TokenIds tokens;
  };

  // Keeps a chain of blocks alive. Move-only.
  class Lease {
   public:
    Lease(Lease&& other) noexcept;
    Lease& operator=(Lease&& other) noexcept;
    ~Lease();

    std::span<const KeyBlock> blocks() const { return blocks_; }
    int num_tokens() const { return num_tokens_; }
    const std::vector<Run>& pending() const { return pending_; }
    void mark_computed(const Run& run);
    bool computed_up_to(int num_blocks) const;  // the first num_blocks, by this lease's holder or another's

   private:
    friend class PrefixCache;
    explicit Lease(PrefixCache* cache) : cache_(cache) {}
    void add(Node* node);  // which is held from now on
    Node* last() const;    // under which the next one stands
    Key suffix_key(std::span<const TokenId> tokens) const;
    PrefixCache* cache_;
    std::vector<Node*> nodes_;  // held; empty once moved from
    std::vector<KeyBlock> blocks_;
    std::vector<Run> pending_;
    int num_tokens_ = 0;
    std::string salt_;
  };

  explicit PrefixCache(BlockPool& pool);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  std::optional<Lease> acquire(const std::vector<TokenIds>& segments, const std::string& salt = "");
  // The prefix and as many whole blocks of the suffix as are here; a lease of its own on all of them.
  Lease extend(const Lease& prefix, std::span<const TokenId> suffix);
  // Takes the computed blocks of a suffix of whole blocks, from its block first_block on; `extend` has found those
  // before. Blocks whose tokens are here already stay the caller's.
  void keep_suffix(const Lease& prefix, std::span<const TokenId> suffix, int first_block,
                   std::span<BlockPool::Block> blocks);
  // Makes at least num_blocks free in the pool; false (and the pool as it was) when leases hold too much.
  bool reserve(int num_blocks);
  void clear();  // drops everything that no lease holds

  int num_cached() const { return num_cached_; }  // blocks that no lease holds
  int num_leased() const { return num_nodes_ - num_cached_; }

 private:
  enum class Part { kPrefix, kSuffix };
  struct Key {
    Part part;
    std::string salt;  // of the root's children; empty below them
    TokenIds tokens;   // 1..kBlockTokens
    auto operator<=>(const Key&) const = default;
  };
  struct Node {
    Node* parent = nullptr;
    Key key;
    BlockPool::Block block;
    std::map<Key, std::unique_ptr<Node>> children;
    int leases = 0;
    bool computed = false;
    std::uint64_t last_used = 0;
  };
  using Chunk = std::pair<int, TokenIds>;  // segment, tokens

  static std::vector<Chunk> chunks_of(const std::vector<TokenIds>& segments);
  std::vector<Node*> find(const std::vector<Chunk>& chunks, const std::string& salt);
  Node* insert(Node* parent, Key key, BlockPool::Block block);
  void hold(Node* node);
  void drop(Node* node);
  void evict(Node* leaf);

  BlockPool& pool_;
  Node root_;
  std::set<std::pair<std::uint64_t, Node*>> lru_;  // evictable leaves, oldest first
  std::uint64_t clock_ = 0;
  int num_nodes_ = 0;
  int num_cached_ = 0;
};

}  // namespace exp3rt
