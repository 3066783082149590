#pragma once

#include <string>
#include <vector>

#include "core/request.h"

namespace exp3rt {

enum class Status { kOk, kFailed, kCancelled, kExpired };

struct CandidateResult {
  Status status = Status::kOk;
  std::vector<float> label_logits;  // [label_tokens]; empty unless ok, and if there are none
  TokenIds reasoning_tokens;
  ItemKvPtr item_kv;  // of a group that only encodes items
};

struct GroupResult {
  std::vector<CandidateResult> candidates;  // in the order of the suffixes
  double queue_s = 0;                       // submission until the first token is computed
  double compute_s = 0;                     // from there to the last result
  std::string error;                        // not empty: the whole group failed, candidates is empty
};

struct ExecutorStats {
  std::int64_t prompt_tokens_computed = 0;  // prefix, suffix and answer tokens that went through the model
  std::int64_t prompt_tokens_reused = 0;    // prompt tokens that candidates found in shared blocks
  std::int64_t generated_tokens = 0;
  std::int64_t draft_tokens = 0;  // guesses of the next tokens that were computed along
  std::int64_t draft_tokens_accepted = 0;
  std::int64_t items_computed = 0;   // item segments that went through the model
  std::int64_t items_in_memory = 0;  // found computed, or being computed
  std::int64_t items_stored = 0;     // came with their keys and values, from a catalogue
  std::int64_t candidates_done = 0;
  std::int64_t groups_done = 0;
  std::int64_t steps = 0;
  std::int64_t blocks_total = 0;
  std::int64_t blocks_free = 0;
  std::int64_t blocks_cached = 0;
  std::int64_t blocks_in_use = 0;
  std::int64_t block_size = kBlockTokens;  // in tokens
  double queue_s = 0;                      // summed over groups
  double compute_s = 0;                    // time spent in steps
  double attention_s = 0;                  // of it in attention: queries meet the keys and values of all layers
};

}  // namespace exp3rt
