#include "scheduler/scheduler.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace exp3rt {
namespace {

constexpr int kMaxDrafts = 4;  // of a sequence in one step

double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

bool expired(const GroupState& group, Clock::time_point now) {
  const double timeout = group.request.timeout_s;
  return timeout > 0 && seconds(now - group.submitted) > timeout;
}

}  // namespace

Scheduler::Scheduler(BlockPool& pool, PrefixCache& cache, ItemCache& items, int max_batch_tokens, int max_drafted_rows)
    : pool_(pool),
      cache_(cache),
      items_(items),
      max_batch_tokens_(max_batch_tokens),
      max_drafted_rows_(std::min(max_drafted_rows, max_batch_tokens)) {
  if (max_batch_tokens < 1) throw std::invalid_argument("max_batch_tokens must be at least 1");
  for (int i = 0; i < max_batch_tokens; ++i) passing_blocks_.push_back(passing_block(i));
}

void Scheduler::add(std::unique_ptr<GroupState> group) {
  group->num_unfinished = static_cast<int>(group->request.num_candidates());
  group->result.candidates.resize(group->request.num_candidates());
  waiting_.push_back(std::move(group));
}

void Scheduler::cancel(GroupId id) {
  const auto mark = [id](const std::unique_ptr<GroupState>& group) { group->cancelled |= group->id == id; };
  std::for_each(waiting_.begin(), waiting_.end(), mark);
  std::for_each(active_.begin(), active_.end(), mark);
}

const Batch& Scheduler::next_batch() {
  batch_ = Batch{};
  output_owners_.clear();
  pieces_.clear();
  num_planned_ = 0;
  stop_cancelled_and_expired();
  draft_tokens();
  do {
    std::size_t i = 0;
    while (num_planned_ < max_batch_tokens_) {
      if (i < running_.size()) {
        schedule(i++);
      } else if (!admit()) {
        break;
      }
    }
  } while (pieces_.empty() && finish_encoded());
  assemble();
  if (batch_.empty() && !(waiting_.empty() && active_.empty())) throw std::logic_error("the scheduler is stuck");
  return batch_;
}

void Scheduler::stop_cancelled_and_expired() {
  const auto now = Clock::now();
  const auto stop = [now, this](GroupState& group) {
    if (!group.cancelled && !expired(group, now)) return;
    const Status status = group.cancelled ? Status::kCancelled : Status::kExpired;
    for (Sequence& sequence : running_) {
      if (sequence.group != &group || sequence.of_group() || sequence.finished) continue;
      sequence.finished = true;
      finish(group, sequence.index, status);
    }
    const int total = static_cast<int>(group.result.candidates.size());
    while (group.num_admitted < total) finish(group, group.num_admitted++, status);
  };
  for (const auto& group : waiting_) stop(*group);
  for (const auto& group : active_) stop(*group);
  std::erase_if(waiting_, [](const auto& group) { return group->num_unfinished == 0; });
  remove_finished();
}

// A step takes at least as long as reading weights and keys does, and some more rows cost little.
void Scheduler::draft_tokens() {
  int pending = 0, writing = 0;
  const auto writes = [](const Sequence& s) { return s.decoding && s.phase == Sequence::Phase::kReasoning; };
  for (const Sequence& sequence : running_) {
    pending += sequence.num_pending();
    writing += writes(sequence) ? 1 : 0;
  }
  const int room = max_drafted_rows_ - pending;
  if (writing == 0 || room < writing) return;
  for (Sequence& sequence : running_) {
    if (writes(sequence)) draft(sequence, std::min(kMaxDrafts, room / writing));
  }
}

// Plans as much of the sequence as fits into the batch.
void Scheduler::schedule(std::size_t running_index) {
  Sequence& sequence = running_[running_index];
  if (!sequence.ready() || sequence.num_pending() == 0) return;
  const int num_tokens = std::min(sequence.num_pending(), max_batch_tokens_ - num_planned_);
  const int num_plain = std::min(num_tokens, sequence.num_pending() - sequence.num_precise());
  plan(running_index, num_tokens, num_tokens - num_plain);
  stats_.prompt_tokens_computed += num_tokens - sequence.num_drafts;
  if (sequence.num_pending() > 0) return;
  if (sequence.phase == Sequence::Phase::kPrefix) {
    GroupState& group = *sequence.group;
    group.lease->mark_computed(group.lease->pending()[static_cast<std::size_t>(sequence.index)]);
    --group.num_runs;
    sequence.finished = true;
  } else if (sequence.phase == Sequence::Phase::kItem) {
    copy_item(sequence);
    sequence.finished = true;
  } else {
    pieces_.back().num_outputs = 1 + sequence.num_drafts;
  }
}

void Scheduler::copy_item(const Sequence& sequence) {
  const ItemCache::Lease& lease = *sequence.item.lease;
  batch_.item_copies.push_back({sequence.own_blocks, lease.item()->num_tokens, lease.destination()});
}

void Scheduler::plan(std::size_t running_index, int num_tokens, int num_precise) {
  Sequence& sequence = running_[running_index];
  pieces_.push_back({running_index, num_tokens, num_precise, sequence.next_pending, sequence.num_computed, 0});
  sequence.next_pending += static_cast<std::size_t>(num_tokens);
  sequence.num_computed += num_tokens;
  num_planned_ += num_tokens;
}

// Lays the pieces out as a batch.
void Scheduler::assemble() {
  for (const Piece& piece : pieces_) {
    const Sequence& sequence = running_[piece.running_index];
    const GroupState& group = *sequence.group;
    const auto context = group.lease->blocks().first(static_cast<std::size_t>(sequence.num_context_blocks));
    batch_.slices.push_back({batch_.num_rows(), piece.num_tokens, piece.first_own_token, context, place(piece),
                             sequence.phase == Sequence::Phase::kItem ? nullptr : sequence.item.get(),
                             sequence.decoding && sequence.phase == Sequence::Phase::kReasoning});
    for (int i = 0; i < piece.num_tokens; ++i) {
      batch_.tokens.push_back(sequence.pending[piece.first_pending + static_cast<std::size_t>(i)]);
      batch_.positions.push_back(sequence.first_position + piece.first_own_token + i);
    }
    for (int row = batch_.num_rows() - piece.num_precise; row < batch_.num_rows(); ++row) {
      batch_.precise_rows.push_back(row);
    }
    const bool answers = sequence.phase == Sequence::Phase::kAnswer;
    const auto labels = answers ? std::span<const TokenId>(group.request.label_tokens) : std::span<const TokenId>();
    for (int row = batch_.num_rows() - piece.num_outputs; row < batch_.num_rows(); ++row) {
      batch_.outputs.push_back({row, labels});
      output_owners_.push_back(piece.running_index);
    }
  }
}

// Where the piece's keys and values go; those of its blocks that it is the first to write are fresh.
std::span<const BlockId> Scheduler::place(const Piece& piece) {
  const Sequence& sequence = running_[piece.running_index];
  std::span<const BlockId> blocks = sequence.own_blocks;
  const bool of_prefix = sequence.phase == Sequence::Phase::kPrefix;
  std::size_t num_written = of_prefix ? 0 : static_cast<std::size_t>(sequence.num_reused_blocks());
  if (passes(piece)) {
    const auto count = static_cast<std::size_t>(ceil_div(piece.num_tokens, kBlockTokens));
    blocks = std::span(passing_blocks_).subspan(static_cast<std::size_t>(batch_.num_passing_blocks), count);
    batch_.num_passing_blocks += static_cast<int>(count);
  } else if (sequence.decoding || piece.first_own_token > static_cast<int>(num_written) * kBlockTokens) {
    num_written = blocks.size();
  }
  batch_.fresh_blocks.insert(batch_.fresh_blocks.end(), blocks.begin() + static_cast<std::ptrdiff_t>(num_written),
                             blocks.end());
  return blocks;
}

// Whether nothing of the piece's sequence is read after this batch: all of a candidate that is only scored, and not kept.
bool Scheduler::passes(const Piece& piece) const {
  const Sequence& sequence = running_[piece.running_index];
  const bool whole = piece.first_own_token == 0 && piece.num_outputs > 0;
  return whole && sequence.phase == Sequence::Phase::kAnswer && !sequence.group->request.reuse_suffixes;
}

void Scheduler::complete(std::vector<OutputValue> values) {
  for (std::size_t i = 0; i < values.size();) {
    Sequence& sequence = running_[output_owners_[i]];
    const std::size_t count = 1 + static_cast<std::size_t>(sequence.num_drafts);
    if (sequence.phase == Sequence::Phase::kAnswer) {
      take_label_logits(sequence, std::move(values[i]));
    } else {
      take_next_tokens(sequence, std::span(values).subspan(i, count));
    }
    i += count;
  }
  mark_computed_items();
  if (!finish_encoded()) remove_finished();
}

void Scheduler::mark_computed_items() {
  for (const Sequence& sequence : running_) {
    if (sequence.phase != Sequence::Phase::kItem || !sequence.finished) continue;
    sequence.item.lease->mark_computed();
    --sequence.group->num_runs;
  }
}

// Hands out the items that were asked for by themselves and are here now; false if there were none.
bool Scheduler::finish_encoded() {
  bool any = false;
  for (Sequence& sequence : running_) {
    if (sequence.phase != Sequence::Phase::kItemOnly || sequence.finished || !sequence.item.computed()) continue;
    CandidateResult& result = sequence.group->result.candidates[static_cast<std::size_t>(sequence.index)];
    result.item_kv = sequence.item.stored ? sequence.item.stored : sequence.item.lease->item();
    sequence.finished = any = true;
    finish(*sequence.group, sequence.index, Status::kOk);
  }
  if (any) remove_finished();
  return any;
}

void Scheduler::take_next_tokens(Sequence& sequence, std::span<const OutputValue> values) {
  TokenIds tokens;
  for (const OutputValue& value : values) {
    if (value.next_token < 0) break;
    tokens.push_back(value.next_token);
  }
  if (tokens.empty()) {
    sequence.finished = true;
    return finish(*sequence.group, sequence.index, Status::kFailed);
  }
  const Advance advance = advance_reasoning(sequence, tokens);
  stats_.generated_tokens += advance.num_tokens;
  stats_.draft_tokens += static_cast<std::int64_t>(values.size()) - 1;
  stats_.draft_tokens_accepted += advance.num_accepted;
  if (sequence.num_pending() == 0) {  // generated only: nothing follows
    sequence.finished = true;
    return finish(*sequence.group, sequence.index, Status::kOk);
  }
  // What is added and was not a draft will be computed, and is no prompt token.
  stats_.prompt_tokens_computed -= advance.num_tokens - advance.num_accepted;
}

void Scheduler::take_label_logits(Sequence& sequence, OutputValue value) {
  const auto& logits = value.label_logits;
  const bool finite = std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); });
  if (finite) {
    sequence.group->result.candidates[static_cast<std::size_t>(sequence.index)].label_logits =
        std::move(value.label_logits);
  }
  sequence.finished = true;
  if (finite && sequence.group->request.reuse_suffixes) keep_suffix(sequence);
  finish(*sequence.group, sequence.index, finite ? Status::kOk : Status::kFailed);
}

void Scheduler::keep_suffix(Sequence& candidate) {
  const RerankGroup& request = candidate.group->request;
  const TokenIds& suffix = request.suffixes[static_cast<std::size_t>(candidate.index)];
  cache_.keep_suffix(*candidate.group->lease, reusable_part(request, suffix), candidate.num_reused_blocks(),
                     candidate.owned);
}

void Scheduler::finish(GroupState& group, int candidate, Status status) {
  group.result.candidates[static_cast<std::size_t>(candidate)].status = status;
  ++stats_.candidates_done;
  if (--group.num_unfinished == 0) deliver(group);
}

void Scheduler::deliver(GroupState& group) {
  const auto now = Clock::now();
  group.result.queue_s = seconds(group.started.value_or(now) - group.submitted);
  group.result.compute_s = seconds(now - group.started.value_or(now));
  stats_.queue_s += group.result.queue_s;
  ++stats_.groups_done;
  finished_.push_back({std::move(group.on_done), std::move(group.result)});
}

void Scheduler::remove_finished() {
  std::erase_if(running_, [](const Sequence& sequence) { return sequence.finished; });
  std::erase_if(active_, [](const auto& group) { return group->num_unfinished == 0 && group->num_runs == 0; });
}

std::vector<FinishedGroup> Scheduler::take_finished() { return std::exchange(finished_, {}); }

void Scheduler::fail_all(const std::string& error) {
  running_.clear();
  const auto fail = [&error, this](GroupState& group) {
    if (group.num_unfinished == 0) return;  // delivered before
    group.result.candidates.clear();
    group.result.error = error;
    deliver(group);
  };
  for (const auto& group : active_) fail(*group);
  for (const auto& group : waiting_) fail(*group);
  active_.clear();
  waiting_.clear();
  cache_.clear();  // parts of it may not have been computed
}

ExecutorStats Scheduler::stats() const {
  ExecutorStats stats = stats_;
  stats.blocks_total = pool_.num_total();
  stats.blocks_free = pool_.num_free();
  stats.blocks_cached = cache_.num_cached();
  stats.blocks_in_use = stats.blocks_total - stats.blocks_free - stats.blocks_cached;
  return stats;
}

}  // namespace exp3rt
