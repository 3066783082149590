#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/request.h"

namespace exp3rt {

// How much a part of a prompt is worth in the engine's KV cache, from 0 (goes first) to 100.
struct Retention {
  int first_token = 0;
  int end_token = 0;  // not included
  int priority = 0;

  bool operator==(const Retention&) const = default;
};

// One sequence for the engine: a prompt, and greedy tokens after it.
struct TokenRequest {
  TokenIds tokens;
  int max_new_tokens = 1;
  TokenIds end_tokens;                      // end the sequence early; empty: exactly max_new_tokens
  TokenIds label_tokens;                    // whose logits are wanted, at the first new token
  std::vector<Retention> retention;         // of the prompt: ascending, disjoint, without a gap
  int new_token_priority = 0;               // retention of the blocks of the new tokens
  std::optional<std::uint64_t> cache_salt;  // blocks are shared only among requests of one salt
};

// What became of a request. Every enqueued request gets exactly one, a cancelled one too.
struct TokenResponse {
  std::uint64_t id = 0;
  std::string error;    // not empty: the request failed
  TokenIds new_tokens;  // may end with the end token
  std::vector<float> label_logits;
  int reused_blocks = 0;  // of the prompt, found in the cache
};

struct TokenEngineStats {
  std::int64_t blocks_total = 0;  // 0: not known yet
  std::int64_t blocks_free = 0;   // blocks that nobody uses, those with reusable contents too
  std::int64_t blocks_in_use = 0;
  std::int64_t queued_requests = 0;  // enqueued, not started
  std::int64_t steps = 0;            // since the engine was made
  double compute_s = 0;              // spent in them
};

// What we need of an engine that batches sequences in flight and shares blocks of equal prompts: the seam between
// the logic of groups (group_driver.h) and NVIDIA's headers (trtllm_executor.cc). Used by one thread.
class TokenEngine {
 public:
  virtual ~TokenEngine() = default;
  // Throws for a request that it refuses.
  virtual std::uint64_t enqueue(TokenRequest request) = 0;
  // Waits until there are responses, or for that long. Throws when the engine is broken.
  virtual std::vector<TokenResponse> await(std::chrono::milliseconds timeout) = 0;
  virtual void cancel(std::uint64_t id) = 0;
  virtual TokenEngineStats stats() = 0;
  virtual void shutdown() = 0;
};

}  // namespace exp3rt
