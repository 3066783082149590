#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "core/batch.h"
#include "kvcache/block_pool.h"
#include "kvcache/item_cache.h"
#include "kvcache/prefix_cache.h"
#include "scheduler/sequence.h"

namespace exp3rt {

// A group whose candidates all have a result, and whom to tell.
struct FinishedGroup {
  OnDone on_done;
  GroupResult result;
};

// Continuous batching of groups, bounded by tokens. Groups enter first come, first served, a candidate at a time and
// only when the batch has room and the pool has all the blocks that the candidate can ever need: what was admitted
// can always finish. Sequences leave at the step that finishes them.
//
// Use: add and cancel at any time; then next_batch, run it, complete, take_finished; again until idle.
// Not thread-safe. Destroy it before the caches.
class Scheduler {
 public:
  // max_drafted_rows: a batch of up to so many rows may have drafts (scheduler/prompt_lookup.h) among them.
  Scheduler(BlockPool& pool, PrefixCache& cache, ItemCache& items, int max_batch_tokens, int max_drafted_rows);

  // Throws std::invalid_argument, naming the part, for a group that could never run.
  void check(const RerankGroup& request) const;
  void add(std::unique_ptr<GroupState> group);  // checked
  void cancel(GroupId id);
  bool idle() const { return waiting_.empty() && active_.empty() && finished_.empty(); }

  const Batch& next_batch();                       // empty when nothing is left to compute
  void complete(std::vector<OutputValue> values);  // in the order of the batch's outputs
  std::vector<FinishedGroup> take_finished();
  void fail_all(const std::string& error);  // every group gets the error; the cache is dropped

  ExecutorStats stats() const;  // all but steps and compute_s

 private:
  // Tokens of one sequence that go into the batch at hand.
  struct Piece {
    std::size_t running_index;
    int num_tokens;
    int num_precise;  // the last of them
    std::size_t first_pending;
    int first_own_token;
    int num_outputs;  // of its last rows
  };

  // admission.cc
  bool admit();
  void admit_group();
  bool admit_candidate(GroupState& group);
  std::optional<ItemView> admit_item(GroupState& group, int candidate);
  std::optional<std::vector<BlockPool::Block>> take_blocks(int count);

  void stop_cancelled_and_expired();
  void draft_tokens();
  void schedule(std::size_t running_index);
  void plan(std::size_t running_index, int num_tokens, int num_precise);
  void assemble();
  std::span<const BlockId> place(const Piece& piece);
  bool passes(const Piece& piece) const;
  void copy_item(const Sequence& sequence);
  void mark_computed_items();
  bool finish_encoded();
  void take_label_logits(Sequence& sequence, OutputValue value);
  void take_next_tokens(Sequence& sequence, std::span<const OutputValue> values);
  void keep_suffix(Sequence& candidate);
  void finish(GroupState& group, int candidate, Status status);
  void deliver(GroupState& group);
  void remove_finished();

  BlockPool& pool_;
  PrefixCache& cache_;
  ItemCache& items_;
  int max_batch_tokens_, max_drafted_rows_;
  std::deque<std::unique_ptr<GroupState>> waiting_;
  std::vector<std::unique_ptr<GroupState>> active_;  // only the last may have candidates not yet admitted
  std::vector<Sequence> running_;                    // in order of admission
  std::vector<FinishedGroup> finished_;
  std::vector<Piece> pieces_;
  int num_planned_ = 0;                  // tokens in pieces_
  std::vector<BlockId> passing_blocks_;  // as many as a batch can have
  Batch batch_;
  std::vector<std::size_t> output_owners_;  // running_ index of each of the batch's outputs
  ExecutorStats stats_;
};

}  // namespace exp3rt
