#pragma once

#include <string>
#include <vector>

#include "core/types.h"

namespace exp3rt {

using TokenIds = std::vector<TokenId>;

// The unit of work: one user's prefix and the candidates that share it.
//
// Every candidate's context is: prefix segments, suffix, greedy reasoning (none in score mode), answer tokens;
// the label logits are read at the last answer token. Without label tokens the reasoning is all that is wanted: the
// group generates text, and a candidate is done with its last token.
struct RerankGroup {
  std::vector<TokenIds> prefix;    // by segment (instructions, user profile, ...); cached segment by segment
  std::vector<TokenIds> suffixes;  // one per candidate
  TokenIds label_tokens;           // the rating labels whose logits are returned; empty: generate only
  TokenIds answer_tokens;          // forced text between the reasoning and the label
  int max_reasoning_tokens = 0;    // 0: score mode
  TokenIds end_tokens;             // end the reasoning and are not kept; empty: exactly max_reasoning_tokens
  double timeout_s = 0;            // from submission; 0: none
  bool reuse_suffixes = false;     // suffixes are looked up in the cache, and left there; the numbers stay the same
  std::string cache_salt;          // blocks are shared with groups of the same salt alone

  bool generates_only() const { return label_tokens.empty(); }
};

// Both throw std::invalid_argument, naming the part.
void check_fields(const RerankGroup& group);                                   // what holds for every executor
void check_tokens(const RerankGroup& group, int vocab_size, int max_context);  // of the engine's model

}  // namespace exp3rt
