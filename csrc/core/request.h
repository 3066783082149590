#pragma once

#include <string>
#include <vector>

#include "core/item_kv.h"
#include "core/types.h"

namespace exp3rt {

using TokenIds = std::vector<TokenId>;

// The unit of work: one user's prefix and the candidates that share it.
//
// Every candidate's context is: prefix segments, suffix, greedy reasoning (none in score mode), answer tokens;
// the label logits are read at the last answer token. A reasoning ends before an end token, or before the answer tokens
// where the student writes them itself, or is cut off. Without label tokens the reasoning is all that is wanted: the group
// generates text, and a candidate is done with its last token.
//
// With `items`, a candidate also has a segment that sees the first prefix segment and itself, and not the user: its keys
// and values serve every group that names it at the same position, and stand between prefix and suffix for the suffix's
// tokens alone. The positions of items and suffixes are then fixed. Without suffixes, such a group computes its items
// and hands back their keys and values.
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
  std::vector<TokenIds> items;     // none, or one per suffix
  std::vector<ItemKvPtr> stored;   // none, or one per item: its keys and values, or null to compute them
  int item_position = 0;           // of an item's first token; the prefix ends before it
  int suffix_position = 0;         // of a suffix's first token, behind items; each item ends before it

  bool encodes_only() const { return suffixes.empty() && !items.empty(); }
  bool generates_only() const { return label_tokens.empty() && !encodes_only(); }
  std::size_t num_candidates() const { return encodes_only() ? items.size() : suffixes.size(); }
};

// Both throw std::invalid_argument, naming the part.
void check_fields(const RerankGroup& group);                                   // what holds for every executor
void check_tokens(const RerankGroup& group, int vocab_size, int max_context);  // of the engine's model

}  // namespace exp3rt
