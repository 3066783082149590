#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/request.h"
#include "executor/token_engine.h"

namespace exp3rt {

// Retention in the engine's cache: instructions are everybody's, a profile is one user's, a suffix is read once.
inline constexpr int kInstructionsPriority = 90;
inline constexpr int kProfilePriority = 60;
inline constexpr int kReusedSuffixPriority = 35;  // of a group with reuse_suffixes; the engine's own default
inline constexpr int kSuffixPriority = 10;

// The requests that a group is made of. Prompts are cut at whole blocks only where the engine shares them: no token
// is added, moved or left out.
class GroupPlan {
 public:
  GroupPlan(const RerankGroup& group, int tokens_per_block);

  int num_prefix_tokens() const { return static_cast<int>(prefix_.size()); }
  int num_shared_blocks() const { return num_prefix_tokens() / tokens_per_block_; }
  // Of the shared blocks' tokens and the salt; equal for groups that share all of them.
  std::uint64_t prefix_key() const { return key_; }
  // Blocks that one candidate needs beside the shared ones, at most.
  int num_own_blocks(const RerankGroup& group, std::size_t candidate) const;

  // Computes the shared blocks; one new token, which nobody reads.
  TokenRequest warm_up(const RerankGroup& group) const;
  // The candidate's only request, or the one that writes its reasoning.
  TokenRequest first_request(const RerankGroup& group, std::size_t candidate) const;
  // The label logits after the reasoning and the answer.
  TokenRequest answer_request(const RerankGroup& group, std::size_t candidate, const TokenIds& reasoning) const;

 private:
  TokenRequest request(const RerankGroup& group, TokenIds tokens) const;

  TokenIds prefix_;
  int instructions_end_;  // of the blocks that hold nothing but instructions, in tokens
  int tokens_per_block_;
  std::optional<std::uint64_t> cache_salt_;
  std::uint64_t key_;
};

}  // namespace exp3rt
