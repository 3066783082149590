#include "executor/group_plan.h"

#include <algorithm>
#include <utility>

#include "scheduler/sequence.h"

namespace exp3rt {
namespace {

void append(TokenIds& tokens, const TokenIds& more) { tokens.insert(tokens.end(), more.begin(), more.end()); }

// FNV-1a over whole words. Two prefixes with one key cost a warm-up that is left out, never a wrong result.
class Hash {
 public:
  void add(std::uint64_t word) { value_ = (value_ ^ word) * 0x100000001b3ULL; }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325ULL;
};

// The engine takes numbers. Whoever names the tenants must not let them choose their names so that two collide.
std::optional<std::uint64_t> number_of(const std::string& salt) {
  if (salt.empty()) return std::nullopt;
  Hash hash;
  for (const char c : salt) hash.add(static_cast<unsigned char>(c));
  return hash.value();
}

}  // namespace

GroupPlan::GroupPlan(const RerankGroup& group, int tokens_per_block)
    : tokens_per_block_(tokens_per_block), cache_salt_(number_of(group.cache_salt)) {
  for (const TokenIds& segment : group.prefix) append(prefix_, segment);
  const std::size_t instructions = group.prefix.empty() ? 0 : group.prefix.front().size();
  // A block that also holds a part of the profile is the user's.
  instructions_end_ = static_cast<int>(instructions) / tokens_per_block * tokens_per_block;
  Hash hash;
  hash.add(cache_salt_ ? 1 : 0);
  hash.add(cache_salt_.value_or(0));
  const int shared = num_shared_blocks() * tokens_per_block;
  std::for_each_n(prefix_.begin(), shared, [&hash](TokenId token) { hash.add(static_cast<std::uint64_t>(token)); });
  key_ = hash.value();
}

int GroupPlan::num_own_blocks(const RerankGroup& group, std::size_t candidate) const {
  const int tail = num_prefix_tokens() % tokens_per_block_;
  // The engine always adds one token, even when only the label logits are wanted.
  const int tokens = tail + max_own_tokens(group, group.suffixes[candidate]) + 1;
  return static_cast<int>(ceil_div(tokens, tokens_per_block_));
}

// The engine does not share the block of a prompt's last token, whose keys may not be there yet: one token follows the
// whole blocks, so that all of them are shared.
TokenRequest GroupPlan::warm_up(const RerankGroup& group) const {
  const int shared = num_shared_blocks() * tokens_per_block_;
  const bool has_tail = num_prefix_tokens() > shared;
  TokenIds tokens(prefix_.begin(), prefix_.begin() + shared + (has_tail ? 1 : 0));
  if (!has_tail) tokens.push_back(group.suffixes.front().front());
  return request(group, std::move(tokens));
}

TokenRequest GroupPlan::first_request(const RerankGroup& group, std::size_t candidate) const {
  if (group.max_reasoning_tokens == 0) return answer_request(group, candidate, {});
  TokenIds tokens = prefix_;
  append(tokens, group.suffixes[candidate]);
  TokenRequest out = request(group, std::move(tokens));
  out.max_new_tokens = group.max_reasoning_tokens;
  out.end_tokens = group.end_tokens;
  return out;
}

TokenRequest GroupPlan::answer_request(const RerankGroup& group, std::size_t candidate,
                                       const TokenIds& reasoning) const {
  TokenIds tokens = prefix_;
  append(tokens, group.suffixes[candidate]);
  append(tokens, reasoning);
  append(tokens, group.answer_tokens);
  TokenRequest out = request(group, std::move(tokens));
  out.label_tokens = group.label_tokens;
  return out;
}

TokenRequest GroupPlan::request(const RerankGroup& group, TokenIds tokens) const {
  TokenRequest out;
  const int suffix_priority = group.reuse_suffixes ? kReusedSuffixPriority : kSuffixPriority;
  const int profile_end = num_shared_blocks() * tokens_per_block_;
  int begin = 0;
  const auto retain = [&out, &begin](int end, int priority) {
    if (end > begin) out.retention.push_back({begin, end, priority});
    begin = std::max(begin, end);
  };
  retain(instructions_end_, kInstructionsPriority);
  retain(profile_end, kProfilePriority);
  retain(static_cast<int>(tokens.size()), suffix_priority);
  out.tokens = std::move(tokens);
  out.new_token_priority = kSuffixPriority;
  out.cache_salt = cache_salt_;
  return out;
}

}  // namespace exp3rt
