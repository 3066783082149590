#pragma once

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "executor/token_engine.h"

namespace exp3rt {

// A double of an inflight-batching engine, for tests: no model and no GPU. Its "logit" of a label is the sum of the
// prompt's tokens times 100, plus the label; it shares whole blocks of equal prompts as TensorRT-LLM does, all but the
// one of the last token. Responses come in order of arrival, at once or, after `hold`, when the test says so.
class TokenEngineDouble final : public TokenEngine {
 public:
  explicit TokenEngineDouble(int tokens_per_block) : tokens_per_block_(tokens_per_block) {}

  // --- the engine ---

  std::uint64_t enqueue(TokenRequest request) override {
    const std::lock_guard lock(mutex_);
    if (refuses && refuses(request)) throw std::invalid_argument("no such request");
    requests_.push_back(std::move(request));
    waiting_.push_back(requests_.size());
    most_waiting_ = std::max(most_waiting_, waiting_.size());
    changed_.notify_all();
    return requests_.size();
  }

  std::vector<TokenResponse> await(std::chrono::milliseconds timeout) override {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, timeout, [this] { return broken_ || ready() != waiting_.end(); });
    if (broken_) throw std::runtime_error("out of memory");
    std::vector<TokenResponse> responses;
    for (auto id = ready(); id != waiting_.end(); id = ready()) {
      responses.push_back(respond(*id));
      waiting_.erase(id);
    }
    return responses;
  }

  void cancel(std::uint64_t id) override {
    const std::lock_guard lock(mutex_);
    cancelled_.insert(id);
    released_.insert(id);
    changed_.notify_all();
  }

  TokenEngineStats stats() override {
    const std::lock_guard lock(mutex_);
    TokenEngineStats out = fixed_stats;
    out.steps = static_cast<std::int64_t>(num_responses_);
    return out;
  }

  void shutdown() override {
    const std::lock_guard lock(mutex_);
    is_shut_down_ = true;
  }

  // --- the test ---

  void hold() {
    const std::lock_guard lock(mutex_);
    held_ = true;
  }
  void release(std::uint64_t id) {
    const std::lock_guard lock(mutex_);
    released_.insert(id);
    changed_.notify_all();
  }
  void release_all() {
    const std::lock_guard lock(mutex_);
    held_ = false;
    changed_.notify_all();
  }
  void break_down(bool broken) {
    const std::lock_guard lock(mutex_);
    broken_ = broken;
    if (broken) waiting_.clear();
    changed_.notify_all();
  }
  // Request n has the id n + 1.
  std::vector<TokenRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  // Waits for that many requests; true if they came.
  bool has_requests(std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return requests_.size() >= count; });
  }
  std::set<std::uint64_t> cancelled() const {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  }
  std::size_t most_waiting() const {
    const std::lock_guard lock(mutex_);
    return most_waiting_;
  }
  bool is_shut_down() const {
    const std::lock_guard lock(mutex_);
    return is_shut_down_;
  }

  // Set before the first request.
  TokenEngineStats fixed_stats;
  std::function<bool(const TokenRequest&)> refuses;
  std::function<void(const TokenRequest&, TokenResponse&)> spoil;  // of a response
  std::function<TokenIds(const TokenRequest&)> write = [](const auto&) { return TokenIds{7}; };

 private:
  std::deque<std::uint64_t>::iterator ready() {
    return std::find_if(waiting_.begin(), waiting_.end(),
                        [this](std::uint64_t id) { return !held_ || released_.count(id) > 0; });
  }

  TokenResponse respond(std::uint64_t id) {
    const TokenRequest& request = requests_[id - 1];
    TokenResponse response;
    response.id = id;
    ++num_responses_;
    if (cancelled_.count(id) > 0) {
      response.error = "the request was cancelled";
      return response;
    }
    response.new_tokens = write(request);
    int sum = 0;
    for (const TokenId token : request.tokens) sum += token;
    for (const TokenId label : request.label_tokens)
      response.label_logits.push_back(static_cast<float>(100 * sum + label));
    response.reused_blocks = share_blocks(request);
    if (spoil) spoil(request, response);
    return response;
  }

  int share_blocks(const TokenRequest& request) {
    int reused = 0;
    const std::uint64_t salt = request.cache_salt.value_or(0);
    for (std::size_t end = z(tokens_per_block_); end + 1 <= request.tokens.size(); end += z(tokens_per_block_)) {
      TokenIds block(request.tokens.begin(), request.tokens.begin() + static_cast<std::ptrdiff_t>(end));
      if (!cached_.emplace(salt, std::move(block)).second) ++reused;
    }
    return reused;
  }

  static std::size_t z(int i) { return static_cast<std::size_t>(i); }

  int tokens_per_block_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<TokenRequest> requests_;
  std::deque<std::uint64_t> waiting_;
  std::set<std::uint64_t> released_, cancelled_;
  std::set<std::pair<std::uint64_t, TokenIds>> cached_;  // block by block: all tokens up to its end
  std::size_t most_waiting_ = 0, num_responses_ = 0;
  bool held_ = false, broken_ = false, is_shut_down_ = false;
};

}  // namespace exp3rt
