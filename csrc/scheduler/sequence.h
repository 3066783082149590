#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/request.h"
#include "core/result.h"
#include "kvcache/item_cache.h"
#include "kvcache/prefix_cache.h"
#include "scheduler/prompt_lookup.h"

namespace exp3rt {

using Clock = std::chrono::steady_clock;
using GroupId = std::uint64_t;
using OnDone = std::function<void(GroupResult)>;

// A group on its way through the scheduler. Its blocks are held by `lease` from admission on.
struct GroupState {
  GroupId id = 0;
  RerankGroup request;
  OnDone on_done;
  GroupResult result;
  Clock::time_point submitted;
  std::optional<Clock::time_point> started;  // admission
  std::optional<PrefixCache::Lease> lease;
  int num_admitted = 0;    // candidates that became sequences
  int num_unfinished = 0;  // candidates without a result
  int num_runs = 0;        // prefix runs not yet in a batch and items not yet computed; others may wait for them
  PromptLookup lookup;     // the admitted candidates' suffixes and reasonings, by candidate; the prefix comes last
  bool cancelled = false;
};

// The item segment that a candidate sees: with its keys and values from the start, or here, or to be computed.
struct ItemView {
  ItemKvPtr stored;
  std::shared_ptr<ItemCache::Lease> lease;  // shared with the sequence that computes it

  const ItemKv* get() const { return stored ? stored.get() : lease ? lease->item().get() : nullptr; }
  bool computed() const { return stored != nullptr || lease == nullptr || lease->computed(); }
};

// Tokens that go through the model one after another: a run of the prefix, an item, or a candidate. Of a group that only
// encodes items, a candidate has no tokens and waits for its item.
struct Sequence {
  enum class Phase { kPrefix, kItem, kReasoning, kAnswer, kItemOnly };

  GroupState* group = nullptr;
  int index = 0;  // prefix: of the run in lease->pending(); else of the candidate
  Phase phase = Phase::kPrefix;
  int num_context_blocks = 0;  // leading blocks of the group's lease that it attends to
  int first_position = 0;      // of its first own token
  ItemView item;               // a candidate's; of an item's own sequence, what it computes
  std::vector<BlockId> own_blocks;
  std::optional<PrefixCache::Lease> reused;  // of a candidate whose first own_blocks were in the cache
  std::vector<BlockPool::Block> owned;       // a candidate's other own_blocks (a prefix run's belong to the cache)
  TokenIds pending;                          // still to be computed, from next_pending on
  std::size_t next_pending = 0;
  int num_computed = 0;   // own tokens that went into a batch
  bool decoding = false;  // past the prompt
  int num_drafts = 0;     // of the pending tokens, the last are guesses
  bool finished = false;  // leaves the scheduler after this step

  int num_pending() const { return static_cast<int>(pending.size() - next_pending); }
  int num_reused_blocks() const { return static_cast<int>(own_blocks.size() - owned.size()); }  // of a candidate
  int num_precise() const;  // how many of the last pending tokens are computed precisely (core/batch.h)
  bool of_group() const { return phase == Phase::kPrefix || phase == Phase::kItem; }  // and not of a candidate
  bool ready() const {
    return group->lease->computed_up_to(num_context_blocks) && (phase == Phase::kItem || item.computed());
  }
};

Sequence make_prefix_sequence(GroupState& group, int run_index);
// `blocks` hold the item's keys and values until they are copied to where the lease says.
Sequence make_item_sequence(GroupState& group, int candidate, std::shared_ptr<ItemCache::Lease> lease,
                            std::vector<BlockPool::Block> blocks);
// `reused` and `blocks` hold all that the candidate can ever need: see max_own_tokens.
Sequence make_candidate(GroupState& group, int candidate, ItemView item, std::optional<PrefixCache::Lease> reused,
                        std::vector<BlockPool::Block> blocks);
// The leading part of a suffix that can stand in the cache for later groups: whole blocks without a precise row
// (core/batch.h), and without the last token, whose output is needed.
std::span<const TokenId> reusable_part(const RerankGroup& request, const TokenIds& suffix);
int max_own_tokens(const RerankGroup& request, const TokenIds& suffix);

// Lets the next batch compute guesses of what follows the pending token, at most `count`.
void draft(Sequence& candidate, int count);

struct Advance {
  int num_tokens;    // new in the reasoning
  int num_accepted;  // drafts that were right
};
// Takes the greedy tokens that follow the pending token and each draft, as far as the drafts were right: more reasoning,
// or the answer begins; without one, nothing is pending then. What was computed behind a wrong draft is computed anew,
// and leaves no trace.
Advance advance_reasoning(Sequence& candidate, std::span<const TokenId> next_tokens);

}  // namespace exp3rt
