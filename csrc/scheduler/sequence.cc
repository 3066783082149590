#include "scheduler/sequence.h"

#include <algorithm>
#include <utility>

namespace exp3rt {
namespace {

// The forced answer is about six tokens; as raw text it is the end of the suffix, so it is counted from the label.
constexpr int kPreciseAnswerTokens = 8;

void append(TokenIds& tokens, const TokenIds& more) { tokens.insert(tokens.end(), more.begin(), more.end()); }

void feed(Sequence& sequence, TokenIds tokens) {
  sequence.pending = std::move(tokens);
  sequence.next_pending = 0;
}

}  // namespace

int Sequence::num_precise() const {
  if (phase == Phase::kPrefix) return num_pending();
  if (phase == Phase::kReasoning) return 0;
  return std::min(num_pending(), kPreciseAnswerTokens);
}

Sequence make_prefix_sequence(GroupState& group, int run_index) {
  const PrefixCache::Run& run = group.lease->pending()[static_cast<std::size_t>(run_index)];
  Sequence sequence;
  sequence.group = &group;
  sequence.index = run_index;
  sequence.num_context_blocks = run.first_block;
  sequence.num_context_tokens = run.position;
  const auto blocks = group.lease->blocks();
  for (int i = 0; i < run.num_blocks; ++i) {
    sequence.own_blocks.push_back(blocks[static_cast<std::size_t>(run.first_block + i)].block);
  }
  feed(sequence, run.tokens);
  return sequence;
}

int max_own_tokens(const RerankGroup& request, const TokenIds& suffix) {
  return static_cast<int>(suffix.size() + request.answer_tokens.size()) + request.max_reasoning_tokens;
}

std::span<const TokenId> reusable_part(const RerankGroup& request, const TokenIds& suffix) {
  const bool reasons = request.max_reasoning_tokens > 0;
  const int num_tokens = static_cast<int>(suffix.size());
  const int before_label = num_tokens + static_cast<int>(request.answer_tokens.size()) - kPreciseAnswerTokens;
  const int reusable = reasons ? num_tokens - 1 : std::clamp(before_label, 0, num_tokens);
  return std::span(suffix).first(static_cast<std::size_t>(reusable / kBlockTokens * kBlockTokens));
}

Sequence make_candidate(GroupState& group, int candidate, std::optional<PrefixCache::Lease> reused,
                        std::vector<BlockPool::Block> blocks) {
  const RerankGroup& request = group.request;
  Sequence sequence;
  sequence.group = &group;
  sequence.index = candidate;
  sequence.num_context_blocks = static_cast<int>(group.lease->blocks().size());
  sequence.num_context_tokens = group.lease->num_tokens();
  if (reused) {
    const auto found = reused->blocks().subspan(static_cast<std::size_t>(sequence.num_context_blocks));
    for (const KeyBlock& block : found) sequence.own_blocks.push_back(block.block);
    sequence.num_computed = reused->num_tokens() - sequence.num_context_tokens;
  }
  sequence.reused = std::move(reused);
  sequence.owned = std::move(blocks);
  for (const auto& block : sequence.owned) sequence.own_blocks.push_back(block.id());
  TokenIds tokens = request.suffixes[static_cast<std::size_t>(candidate)];
  const bool reasons = request.max_reasoning_tokens > 0;
  sequence.phase = reasons ? Sequence::Phase::kReasoning : Sequence::Phase::kAnswer;
  if (!reasons) append(tokens, request.answer_tokens);
  feed(sequence, std::move(tokens));
  sequence.next_pending = static_cast<std::size_t>(sequence.num_computed);
  return sequence;
}

bool advance_reasoning(Sequence& candidate, TokenId next_token) {
  const RerankGroup& request = candidate.group->request;
  TokenIds& reasoning = candidate.group->result.candidates[static_cast<std::size_t>(candidate.index)].reasoning_tokens;
  const auto& ends = request.end_tokens;
  const bool ended = std::find(ends.begin(), ends.end(), next_token) != ends.end();
  candidate.decoding = true;
  TokenIds tokens;
  if (!ended) {
    reasoning.push_back(next_token);
    tokens.push_back(next_token);
  }
  if (ended || static_cast<int>(reasoning.size()) == request.max_reasoning_tokens) {
    candidate.phase = Sequence::Phase::kAnswer;
    append(tokens, request.answer_tokens);
  }
  feed(candidate, std::move(tokens));
  return !ended;
}

}  // namespace exp3rt
