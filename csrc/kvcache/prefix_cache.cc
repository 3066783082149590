#include "kvcache/prefix_cache.h"

#include <algorithm>

namespace exp3rt {

PrefixCache::Lease::Lease(Lease&& other) noexcept
    : cache_(other.cache_),
      nodes_(std::exchange(other.nodes_, {})),
      blocks_(std::move(other.blocks_)),
      pending_(std::move(other.pending_)),
      num_tokens_(other.num_tokens_),
      salt_(std::move(other.salt_)) {}

PrefixCache::Lease& PrefixCache::Lease::operator=(Lease&& other) noexcept {
  std::swap(cache_, other.cache_);
  std::swap(nodes_, other.nodes_);
  std::swap(blocks_, other.blocks_);
  std::swap(pending_, other.pending_);
  std::swap(num_tokens_, other.num_tokens_);
  std::swap(salt_, other.salt_);
  return *this;
}

PrefixCache::Lease::~Lease() {
  for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node) cache_->drop(*node);
}

void PrefixCache::Lease::add(Node* node) {
  cache_->hold(node);
  nodes_.push_back(node);
  const int num_tokens = static_cast<int>(node->key.tokens.size());
  blocks_.push_back({node->block.id(), num_tokens});
  num_tokens_ += num_tokens;
}

void PrefixCache::Lease::mark_computed(const Run& run) {
  for (int i = 0; i < run.num_blocks; ++i) nodes_[static_cast<std::size_t>(run.first_block + i)]->computed = true;
}

bool PrefixCache::Lease::computed_up_to(int num_blocks) const {
  return std::all_of(nodes_.begin(), nodes_.begin() + num_blocks, [](const Node* node) { return node->computed; });
}

PrefixCache::Node* PrefixCache::Lease::last() const { return nodes_.empty() ? &cache_->root_ : nodes_.back(); }

PrefixCache::Key PrefixCache::Lease::suffix_key(std::span<const TokenId> tokens) const {
  return {Part::kSuffix, nodes_.empty() ? salt_ : "", TokenIds(tokens.begin(), tokens.end())};
}

PrefixCache::PrefixCache(BlockPool& pool) : pool_(pool) {}
PrefixCache::~PrefixCache() = default;

std::vector<PrefixCache::Chunk> PrefixCache::chunks_of(const std::vector<TokenIds>& segments) {
  std::vector<Chunk> chunks;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    const TokenIds& tokens = segments[s];
    for (std::size_t begin = 0; begin < tokens.size(); begin += kBlockTokens) {
      const std::size_t end = std::min(begin + kBlockTokens, tokens.size());
      chunks.emplace_back(static_cast<int>(s), TokenIds(tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                                                        tokens.begin() + static_cast<std::ptrdiff_t>(end)));
    }
  }
  return chunks;
}

// The longest chain that is here already.
std::vector<PrefixCache::Node*> PrefixCache::find(const std::vector<Chunk>& chunks, const std::string& salt) {
  std::vector<Node*> chain;
  const Node* node = &root_;
  for (const auto& [segment, tokens] : chunks) {
    const auto child = node->children.find({Part::kPrefix, chain.empty() ? salt : "", tokens});
    if (child == node->children.end()) break;
    node = chain.emplace_back(child->second.get());
  }
  return chain;
}

std::optional<PrefixCache::Lease> PrefixCache::acquire(const std::vector<TokenIds>& segments, const std::string& salt) {
  const std::vector<Chunk> chunks = chunks_of(segments);
  Lease lease(this);
  lease.salt_ = salt;
  lease.nodes_ = find(chunks, salt);
  for (Node* node : lease.nodes_) hold(node);  // before making room, so that it is not made of these
  const std::size_t num_found = lease.nodes_.size();
  if (!reserve(static_cast<int>(chunks.size() - num_found))) return std::nullopt;

  int run_segment = -1;
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    const auto& [segment, tokens] = chunks[i];
    if (i >= num_found) {
      Node* node = insert(i ? lease.nodes_.back() : &root_, {Part::kPrefix, i ? "" : salt, tokens}, pool_.allocate());
      hold(node);
      lease.nodes_.push_back(node);
      if (segment != run_segment) lease.pending_.push_back({static_cast<int>(i), 0, lease.num_tokens_, {}});
      run_segment = segment;
      Run& run = lease.pending_.back();
      ++run.num_blocks;
      run.tokens.insert(run.tokens.end(), tokens.begin(), tokens.end());
    }
    lease.blocks_.push_back({lease.nodes_[i]->block.id(), static_cast<int>(tokens.size())});
    lease.num_tokens_ += static_cast<int>(tokens.size());
  }
  return lease;
}

PrefixCache::Lease PrefixCache::extend(const Lease& prefix, std::span<const TokenId> suffix) {
  Lease lease(this);
  lease.salt_ = prefix.salt_;
  for (Node* node : prefix.nodes_) lease.add(node);
  for (; suffix.size() >= kBlockTokens; suffix = suffix.subspan(kBlockTokens)) {
    const Node* parent = lease.last();
    const auto child = parent->children.find(lease.suffix_key(suffix.first(kBlockTokens)));
    if (child == parent->children.end()) break;
    lease.add(child->second.get());
  }
  return lease;
}

void PrefixCache::keep_suffix(const Lease& prefix, std::span<const TokenId> suffix, int first_block,
                              std::span<BlockPool::Block> blocks) {
  Lease lease = extend(prefix, suffix);  // holds the chain while it grows
  const std::size_t num_found = lease.nodes_.size() - prefix.nodes_.size();
  for (std::size_t i = num_found; i >= static_cast<std::size_t>(first_block) && i * kBlockTokens < suffix.size(); ++i) {
    const auto tokens = suffix.subspan(i * kBlockTokens, kBlockTokens);
    Node* node =
        insert(lease.last(), lease.suffix_key(tokens), std::move(blocks[i - static_cast<std::size_t>(first_block)]));
    node->computed = true;
    lease.add(node);
  }
}

bool PrefixCache::reserve(int num_blocks) {
  if (pool_.num_free() + num_cached_ < num_blocks) return false;
  while (pool_.num_free() < num_blocks) evict(lru_.begin()->second);
  return true;
}

void PrefixCache::clear() {
  while (!lru_.empty()) evict(lru_.begin()->second);
}

PrefixCache::Node* PrefixCache::insert(Node* parent, Key key, BlockPool::Block block) {
  auto node = std::make_unique<Node>();
  node->parent = parent;
  node->key = key;
  node->block = std::move(block);
  ++num_nodes_;
  ++num_cached_;  // until the caller holds it
  return parent->children.emplace(std::move(key), std::move(node)).first->second.get();
}

void PrefixCache::hold(Node* node) {
  if (node->leases++ > 0) return;
  --num_cached_;
  lru_.erase({node->last_used, node});
}

// Leases drop their chains from the tail, so a node's children are unheld before it is.
void PrefixCache::drop(Node* node) {
  if (--node->leases > 0) return;
  ++num_cached_;
  node->last_used = ++clock_;
  if (node->children.empty()) lru_.insert({node->last_used, node});
}

void PrefixCache::evict(Node* leaf) {
  lru_.erase({leaf->last_used, leaf});
  Node* parent = leaf->parent;
  --num_nodes_;
  --num_cached_;
  parent->children.erase(Key(leaf->key));  // a copy: the node dies here
  const bool now_leaf = parent != &root_ && parent->leases == 0 && parent->children.empty();
  if (now_leaf) lru_.insert({parent->last_used, parent});
}

}  // namespace exp3rt
