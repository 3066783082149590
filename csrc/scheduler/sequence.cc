#include "scheduler/sequence.h"

#include <algorithm>
#include <utility>

namespace exp3rt {
namespace {

// The forced answer is about six tokens; as raw text it is the end of the suffix, so it is counted from the label.
constexpr int kPreciseAnswerTokens = 8;
// Behind an item of its own the answer is all that a pair costs, and the item's rounding weighs more than its rows':
// docs/segments.md.
constexpr int kPreciseTokensBehindItem = 1;

void append(TokenIds& tokens, const TokenIds& more) { tokens.insert(tokens.end(), more.begin(), more.end()); }

void feed(Sequence& sequence, TokenIds tokens) {
  sequence.pending = std::move(tokens);
  sequence.next_pending = 0;
}

TokenIds& reasoning_of(Sequence& candidate) {
  return candidate.group->result.candidates[static_cast<std::size_t>(candidate.index)].reasoning_tokens;
}

// A distilled student ends its reasoning as it was taught: with the answer's own words. They are computed anew as the answer,
// so that the label stands where it would if the reasoning had ended in any other way.
bool take_back_answer(Sequence& candidate) {
  const TokenIds& answer = candidate.group->request.answer_tokens;
  TokenIds& reasoning = reasoning_of(candidate);
  if (answer.empty() || reasoning.size() < answer.size()) return false;
  if (!std::equal(answer.rbegin(), answer.rend(), reasoning.rbegin())) return false;
  reasoning.resize(reasoning.size() - answer.size());
  candidate.num_computed -= static_cast<int>(answer.size()) - 1;  // the last was not computed yet
  return true;
}

// Takes the greedy token that follows the reasoning so far. True if it is part of the reasoning.
bool take_token(Sequence& candidate, TokenId next_token) {
  GroupState& group = *candidate.group;
  const RerankGroup& request = group.request;
  TokenIds& reasoning = reasoning_of(candidate);
  bool ended = std::find(request.end_tokens.begin(), request.end_tokens.end(), next_token) != request.end_tokens.end();
  TokenIds tokens;
  if (!ended) {
    reasoning.push_back(next_token);
    tokens.push_back(next_token);
    group.lookup.append(static_cast<std::size_t>(candidate.index), tokens);
    ended = take_back_answer(candidate);
    if (ended) tokens.clear();
  }
  if (ended || static_cast<int>(reasoning.size()) == request.max_reasoning_tokens) {
    candidate.phase = Sequence::Phase::kAnswer;
    if (request.generates_only()) tokens.clear();  // nothing reads what would follow
    append(tokens, request.answer_tokens);
  }
  feed(candidate, std::move(tokens));
  return !ended;
}

}  // namespace

int Sequence::num_precise() const {
  if (phase == Phase::kPrefix) return num_pending();
  if (phase == Phase::kReasoning || phase == Phase::kItem) return 0;
  return std::min(num_pending(), group->request.items.empty() ? kPreciseAnswerTokens : kPreciseTokensBehindItem);
}

Sequence make_prefix_sequence(GroupState& group, int run_index) {
  const PrefixCache::Run& run = group.lease->pending()[static_cast<std::size_t>(run_index)];
  Sequence sequence;
  sequence.group = &group;
  sequence.index = run_index;
  sequence.num_context_blocks = run.first_block;
  sequence.first_position = run.position;
  const auto blocks = group.lease->blocks();
  for (int i = 0; i < run.num_blocks; ++i) {
    sequence.own_blocks.push_back(blocks[static_cast<std::size_t>(run.first_block + i)].block);
  }
  feed(sequence, run.tokens);
  return sequence;
}

Sequence make_item_sequence(GroupState& group, int candidate, std::shared_ptr<ItemCache::Lease> lease,
                            std::vector<BlockPool::Block> blocks) {
  const RerankGroup& request = group.request;
  Sequence sequence;
  sequence.group = &group;
  sequence.index = candidate;
  sequence.phase = Sequence::Phase::kItem;
  sequence.num_context_blocks =
      static_cast<int>(ceil_div(static_cast<std::int64_t>(request.prefix.front().size()), kBlockTokens));
  sequence.first_position = request.item_position;
  sequence.item.lease = std::move(lease);
  sequence.owned = std::move(blocks);
  for (const auto& block : sequence.owned) sequence.own_blocks.push_back(block.id());
  feed(sequence, request.items[static_cast<std::size_t>(candidate)]);
  return sequence;
}

int max_own_tokens(const RerankGroup& request, const TokenIds& suffix) {
  return static_cast<int>(suffix.size() + request.answer_tokens.size()) + request.max_reasoning_tokens;
}

std::span<const TokenId> reusable_part(const RerankGroup& request, const TokenIds& suffix) {
  if (!request.items.empty()) return {};  // behind another item, the same suffix has other keys
  const bool reasons = request.max_reasoning_tokens > 0;
  const int num_tokens = static_cast<int>(suffix.size());
  const int before_label = num_tokens + static_cast<int>(request.answer_tokens.size()) - kPreciseAnswerTokens;
  const int reusable = reasons ? num_tokens - 1 : std::clamp(before_label, 0, num_tokens);
  return std::span(suffix).first(static_cast<std::size_t>(reusable / kBlockTokens * kBlockTokens));
}

Sequence make_candidate(GroupState& group, int candidate, ItemView item, std::optional<PrefixCache::Lease> reused,
                        std::vector<BlockPool::Block> blocks) {
  const RerankGroup& request = group.request;
  Sequence sequence;
  sequence.group = &group;
  sequence.index = candidate;
  sequence.num_context_blocks = static_cast<int>(group.lease->blocks().size());
  sequence.first_position = request.items.empty() ? group.lease->num_tokens() : request.suffix_position;
  sequence.item = std::move(item);
  if (request.encodes_only()) {
    sequence.phase = Sequence::Phase::kItemOnly;
    return sequence;
  }
  if (reused) {
    const auto found = reused->blocks().subspan(static_cast<std::size_t>(sequence.num_context_blocks));
    for (const KeyBlock& block : found) sequence.own_blocks.push_back(block.block);
    sequence.num_computed = reused->num_tokens() - group.lease->num_tokens();
  }
  sequence.reused = std::move(reused);
  sequence.owned = std::move(blocks);
  for (const auto& block : sequence.owned) sequence.own_blocks.push_back(block.id());
  TokenIds tokens = request.suffixes[static_cast<std::size_t>(candidate)];
  const bool reasons = request.max_reasoning_tokens > 0;
  sequence.phase = reasons ? Sequence::Phase::kReasoning : Sequence::Phase::kAnswer;
  if (reasons) {
    if (candidate == 0) {
      for (const TokenIds& segment : request.prefix) group.lookup.append(request.suffixes.size(), segment);
    }
    const auto number = static_cast<std::size_t>(candidate);
    if (!request.items.empty()) group.lookup.append(number, request.items[number]);
    group.lookup.append(number, tokens);
  } else {
    append(tokens, request.answer_tokens);
  }
  feed(sequence, std::move(tokens));
  sequence.next_pending = static_cast<std::size_t>(sequence.num_computed);
  return sequence;
}

void draft(Sequence& candidate, int count) {
  const int left = candidate.group->request.max_reasoning_tokens - static_cast<int>(reasoning_of(candidate).size());
  const int most = std::min(count, left - 1);  // the last token of the reasoning is computed with the answer
  if (most <= 0) return;
  const auto index = static_cast<std::size_t>(candidate.index);
  const TokenIds drafts = candidate.group->lookup.continuation(index, static_cast<std::size_t>(most));
  append(candidate.pending, drafts);
  candidate.num_drafts = static_cast<int>(drafts.size());
}

Advance advance_reasoning(Sequence& candidate, std::span<const TokenId> next_tokens) {
  const TokenIds drafts(candidate.pending.end() - candidate.num_drafts, candidate.pending.end());
  candidate.decoding = true;
  candidate.num_drafts = 0;
  Advance advance{0, 0};
  for (std::size_t i = 0;; ++i) {
    if (take_token(candidate, next_tokens[i])) ++advance.num_tokens;
    const bool writes = candidate.phase == Sequence::Phase::kReasoning;
    if (!writes || i + 1 == next_tokens.size() || drafts[i] != next_tokens[i]) break;
    ++advance.num_accepted;
  }
  candidate.num_computed -= static_cast<int>(drafts.size()) - advance.num_accepted;
  return advance;
}

}  // namespace exp3rt
