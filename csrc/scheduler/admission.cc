// The part of the scheduler that lets groups and candidates in: only those that can always finish.
#include <algorithm>
#include <stdexcept>
#include <utility>

#include "scheduler/scheduler.h"

namespace exp3rt {
namespace {

int num_blocks(std::size_t tokens) {
  return static_cast<int>(ceil_div(static_cast<std::int64_t>(tokens), kBlockTokens));
}

void check_item(const RerankGroup& request, std::size_t number, const ItemCache& items) {
  const std::size_t bytes = items.bytes_of(static_cast<int>(request.items[number].size()));
  const ItemKv* stored = request.stored.empty() ? nullptr : request.stored[number].get();
  const std::string what = "rerank group: item " + std::to_string(number);
  if (stored == nullptr && bytes > items.max_bytes()) {
    throw std::invalid_argument(what + " takes " + std::to_string(bytes) + " bytes, the item cache holds " +
                                std::to_string(items.max_bytes()) + "; give it more");
  }
  const bool fits = stored == nullptr || (stored->num_bytes == bytes &&
                                          stored->num_tokens == static_cast<int>(request.items[number].size()));
  if (!fits) throw std::invalid_argument(what + ": what is stored is of another size");
}

}  // namespace

void Scheduler::check(const RerankGroup& request) const {
  check_fields(request);
  int prefix_blocks = 0;
  for (const TokenIds& segment : request.prefix) prefix_blocks += num_blocks(segment.size());
  const auto check_blocks = [&](const char* what, std::size_t number, int blocks) {
    const int needed = prefix_blocks + blocks;
    if (needed <= pool_.num_total()) return;
    throw std::invalid_argument("rerank group: " + std::string(what) + std::to_string(number) + " needs " +
                                std::to_string(needed) + " KV blocks with its prefix, the pool has " +
                                std::to_string(pool_.num_total()) + "; give it a larger KV cache");
  };
  const auto own_blocks = [&](std::size_t i) {
    if (request.encodes_only()) return 0;
    return num_blocks(static_cast<std::size_t>(max_own_tokens(request, request.suffixes[i])));
  };
  for (std::size_t i = 0; i < request.suffixes.size(); ++i) check_blocks("suffix ", i, own_blocks(i));
  for (std::size_t i = 0; i < request.items.size(); ++i) {
    check_blocks("item ", i, num_blocks(request.items[i].size()) + own_blocks(i));
    check_item(request, i, items_);
  }
}

// Brings in the next sequences, if there are any and there is room for them.
bool Scheduler::admit() {
  if (!active_.empty()) {
    GroupState& group = *active_.back();
    if (group.num_admitted < static_cast<int>(group.result.candidates.size())) return admit_candidate(group);
  }
  if (waiting_.empty()) return false;
  const RerankGroup& request = waiting_.front()->request;
  std::optional<PrefixCache::Lease> lease = cache_.acquire(request.prefix, request.cache_salt);
  if (!lease) return false;
  waiting_.front()->lease.emplace(std::move(*lease));
  admit_group();
  return true;
}

void Scheduler::admit_group() {
  active_.push_back(std::move(waiting_.front()));
  waiting_.pop_front();
  GroupState& group = *active_.back();
  group.started = Clock::now();
  group.num_runs = static_cast<int>(group.lease->pending().size());
  for (int run = 0; run < group.num_runs; ++run) {
    const Sequence& sequence = running_.emplace_back(make_prefix_sequence(group, run));
    stats_.prompt_tokens_reused -= sequence.num_pending();  // counted below as if every candidate had found it
  }
}

bool Scheduler::admit_candidate(GroupState& group) {
  const int index = group.num_admitted;
  std::optional<PrefixCache::Lease> reused;
  std::optional<std::vector<BlockPool::Block>> blocks(std::in_place);
  if (!group.request.encodes_only()) {
    const TokenIds& suffix = group.request.suffixes[static_cast<std::size_t>(index)];
    // before making room, so that it is not made of these
    if (group.request.reuse_suffixes) reused = cache_.extend(*group.lease, reusable_part(group.request, suffix));
    const int num_reused = reused ? static_cast<int>(reused->blocks().size() - group.lease->blocks().size()) : 0;
    blocks = take_blocks(num_blocks(static_cast<std::size_t>(max_own_tokens(group.request, suffix))) - num_reused);
  }
  if (!blocks) return false;
  std::optional<ItemView> item = admit_item(group, index);
  if (!item) return false;
  const Sequence& sequence =
      running_.emplace_back(make_candidate(group, index, std::move(*item), std::move(reused), std::move(*blocks)));
  stats_.prompt_tokens_reused += group.lease->num_tokens() + sequence.num_computed;
  ++group.num_admitted;
  return true;
}

// The item that a candidate sees, if its group has any; brings in the sequence that computes it. Nothing if there is no
// room for it.
std::optional<ItemView> Scheduler::admit_item(GroupState& group, int candidate) {
  const RerankGroup& request = group.request;
  const auto number = static_cast<std::size_t>(candidate);
  if (request.items.empty()) return ItemView{};
  const TokenIds& tokens = request.items[number];
  const int num_tokens = static_cast<int>(tokens.size());
  if (!request.stored.empty() && request.stored[number]) {
    ++stats_.items_stored;
    stats_.prompt_tokens_reused += num_tokens;
    return ItemView{request.stored[number], nullptr};
  }
  auto lease = items_.acquire({request.cache_salt, request.item_position, request.prefix.front(), tokens});
  if (!lease) return std::nullopt;
  const auto shared = std::make_shared<ItemCache::Lease>(std::move(*lease));
  if (!shared->fresh()) {
    ++stats_.items_in_memory;
    stats_.prompt_tokens_reused += num_tokens;
    return ItemView{nullptr, shared};
  }
  auto blocks = take_blocks(num_blocks(tokens.size()));
  if (!blocks) return std::nullopt;
  running_.push_back(make_item_sequence(group, candidate, shared, std::move(*blocks)));
  ++group.num_runs;
  ++stats_.items_computed;
  return ItemView{nullptr, shared};
}

std::optional<std::vector<BlockPool::Block>> Scheduler::take_blocks(int count) {
  if (!cache_.reserve(count)) return std::nullopt;
  std::vector<BlockPool::Block> blocks;
  for (int i = 0; i < count; ++i) blocks.push_back(pool_.allocate());
  return blocks;
}

}  // namespace exp3rt
