#include "executor/group_driver.h"

#include <doctest/doctest.h>

#include <future>
#include <limits>
#include <numeric>
#include <thread>

#include "token_engine_double.h"

namespace exp3rt {
namespace {

constexpr int kBlock = 4;  // tokens

TokenIds iota(TokenId first, int count) {
  TokenIds tokens(static_cast<std::size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

TokenIds join(std::initializer_list<TokenIds> parts) {
  TokenIds out;
  for (const TokenIds& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

float sum(const TokenIds& tokens) { return static_cast<float>(std::accumulate(tokens.begin(), tokens.end(), 0)); }

// Six tokens of instructions, seven of a profile: three whole blocks and one token more.
RerankGroup make_group(int num_candidates, TokenId user = 100) {
  RerankGroup group;
  group.prefix = {iota(1, 6), iota(user, 7)};
  for (int i = 0; i < num_candidates; ++i) group.suffixes.push_back(iota(500 + 10 * i, 3));
  group.label_tokens = {11, 12};
  return group;
}

TokenIds prefix_of(const RerankGroup& group) { return join({group.prefix[0], group.prefix[1]}); }

class Fixture {
 public:
  explicit Fixture(GroupDriverOptions changed = {}, const TokenEngineStats& stats = {}) {
    auto made = std::make_unique<TokenEngineDouble>(kBlock);
    engine = made.get();
    engine->fixed_stats = stats;
    changed.vocab_size = 1000;
    changed.max_context = 65;
    changed.tokens_per_block = kBlock;
    driver = std::make_unique<GroupDriver>(std::move(made), changed);
  }

  // A second call of on_done would throw from the promise, and end the test.
  std::future<GroupResult> submit(RerankGroup group, Executor::Id* id = nullptr) {
    auto promise = std::make_shared<std::promise<GroupResult>>();
    std::future<GroupResult> future = promise->get_future();
    const Executor::Id made =
        driver->submit(std::move(group), [promise](GroupResult r) { promise->set_value(std::move(r)); });
    if (id != nullptr) *id = made;
    return future;
  }

  static GroupResult get(std::future<GroupResult>& future) {
    REQUIRE(future.wait_for(std::chrono::seconds(30)) == std::future_status::ready);
    return future.get();
  }
  GroupResult run(RerankGroup group) {
    auto future = submit(std::move(group));
    return get(future);
  }
  static bool is_pending(const std::future<GroupResult>& future) {
    return future.wait_for(std::chrono::milliseconds(20)) == std::future_status::timeout;
  }

  TokenEngineDouble* engine;
  std::unique_ptr<GroupDriver> driver;
};

std::vector<Status> statuses(const GroupResult& result) {
  std::vector<Status> out;
  for (const CandidateResult& candidate : result.candidates) out.push_back(candidate.status);
  return out;
}

}  // namespace

TEST_CASE("group driver: the prefix's whole blocks go first, the candidates when they are there") {
  Fixture f;
  f.engine->hold();
  const RerankGroup group = make_group(3);
  auto future = f.submit(group);
  REQUIRE(f.engine->has_requests(1));
  CHECK(Fixture::is_pending(future));
  REQUIRE(f.engine->requests().size() == 1);
  const TokenRequest warm_up = f.engine->requests()[0];
  const TokenIds prefix = prefix_of(group);
  CHECK(warm_up.tokens == prefix);  // three blocks, and the token without which the third would not be shared
  CHECK(warm_up.label_tokens.empty());
  CHECK(warm_up.max_new_tokens == 1);
  f.engine->release(1);
  REQUIRE(f.engine->has_requests(4));
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(f.engine->requests()[i + 1].tokens == join({prefix, group.suffixes[i]}));
    CHECK(f.engine->requests()[i + 1].label_tokens == group.label_tokens);
  }
  f.engine->release_all();
  CHECK(statuses(Fixture::get(future)) == std::vector<Status>(3, Status::kOk));
}

TEST_CASE("group driver: a prefix of whole blocks borrows the token that its last block needs") {
  RerankGroup group = make_group(2);
  group.prefix = {iota(1, 4), iota(100, 8)};
  Fixture f;
  f.run(group);
  CHECK(f.engine->requests()[0].tokens == join({group.prefix[0], group.prefix[1], {500}}));
  // Both candidates found all three blocks.
  CHECK(f.driver->stats().prompt_tokens_reused == 2 * 12);
}

TEST_CASE("group driver: a short prefix and a single candidate are not warmed up") {
  Fixture f;
  RerankGroup group = make_group(2);
  group.prefix = {iota(1, 2), iota(100, 1)};
  f.run(group);
  CHECK(f.engine->requests().size() == 2);
  f.run(make_group(1));
  CHECK(f.engine->requests().size() == 3);
  f.run(make_group(2));  // the single candidate left the prefix behind
  CHECK(f.engine->requests().size() == 5);
}

TEST_CASE("group driver: one user's prefix does not keep the next user waiting") {
  Fixture f;
  f.engine->hold();
  auto first = f.submit(make_group(2, 100));
  auto second = f.submit(make_group(2, 200));
  REQUIRE(f.engine->has_requests(2));  // both prefixes
  f.engine->release(2);
  REQUIRE(f.engine->has_requests(4));
  f.engine->release(3);
  f.engine->release(4);
  CHECK(statuses(Fixture::get(second)) == std::vector<Status>(2, Status::kOk));
  CHECK(Fixture::is_pending(first));
  f.engine->release_all();
  Fixture::get(first);
}

TEST_CASE("group driver: groups of one prefix share its warm-up, then and later") {
  Fixture f;
  f.engine->hold();
  auto first = f.submit(make_group(2)), second = f.submit(make_group(3));
  REQUIRE(f.engine->has_requests(1));
  CHECK(Fixture::is_pending(first));
  CHECK(f.engine->requests().size() == 1);
  f.engine->release_all();
  Fixture::get(first);
  Fixture::get(second);
  f.run(make_group(2));
  CHECK(f.engine->requests().size() == 1 + 2 + 3 + 2);
}

TEST_CASE("group driver: instructions are kept longest, suffixes shortest, whole blocks each") {
  Fixture f;
  RerankGroup group = make_group(2);
  f.run(group);
  const std::vector<Retention> whole_blocks = {{0, 4, kInstructionsPriority}, {4, 12, kProfilePriority}};
  for (const TokenRequest& request : f.engine->requests()) {
    std::vector<Retention> expected = whole_blocks;
    expected.push_back({12, static_cast<int>(request.tokens.size()), kSuffixPriority});
    CHECK(request.retention == expected);
    CHECK(request.new_token_priority == kSuffixPriority);
  }
  CHECK(kInstructionsPriority > kProfilePriority);
  CHECK(kProfilePriority > kReusedSuffixPriority);
  CHECK(kReusedSuffixPriority > kSuffixPriority);
  group.reuse_suffixes = true;
  f.run(group);
  CHECK(f.engine->requests().back().retention.back() == Retention{12, 16, kReusedSuffixPriority});
}

TEST_CASE("group driver: the tenant's salt is in every request") {
  RerankGroup ann = make_group(2), bob = make_group(2);
  ann.cache_salt = "ann";
  bob.cache_salt = "bob";
  CHECK(GroupPlan(ann, kBlock).prefix_key() != GroupPlan(bob, kBlock).prefix_key());
  Fixture salted, plain;
  salted.run(ann);
  salted.run(bob);
  salted.run(ann);
  plain.run(make_group(2));
  const auto requests = salted.engine->requests();
  REQUIRE(requests.size() == 8);  // a warm-up and two candidates each; the second time ann's prefix is there
  for (const TokenRequest& request : requests) REQUIRE(request.cache_salt.has_value());
  CHECK(requests[0].cache_salt != requests[3].cache_salt);
  CHECK(requests[0].cache_salt == requests[7].cache_salt);
  for (const TokenRequest& request : plain.engine->requests()) CHECK_FALSE(request.cache_salt.has_value());
}

TEST_CASE("group driver: label logits are those of the label tokens, after the answer's text") {
  Fixture f;
  RerankGroup group = make_group(2);
  group.answer_tokens = {31, 32};
  const GroupResult result = f.run(group);
  for (std::size_t i = 0; i < 2; ++i) {
    const float prompt = sum(join({prefix_of(group), group.suffixes[i], group.answer_tokens}));
    CHECK(result.candidates[i].label_logits == std::vector<float>{100 * prompt + 11, 100 * prompt + 12});
  }
}

TEST_CASE("group driver: logits that are missing or not finite fail their candidate only") {
  for (const bool missing : {true, false}) {
    Fixture f;
    f.engine->spoil = [missing](const TokenRequest& request, TokenResponse& response) {
      if (request.label_tokens.empty() || request.tokens.back() != 512) return;
      if (missing) response.label_logits.pop_back();
      if (!missing) response.label_logits[0] = std::numeric_limits<float>::quiet_NaN();
    };
    const GroupResult result = f.run(make_group(3));
    CHECK(statuses(result) == std::vector<Status>{Status::kOk, Status::kFailed, Status::kOk});
    CHECK(result.candidates[1].label_logits.empty());
  }
}

TEST_CASE("group driver: reason mode writes, then reads the labels behind the answer's text") {
  Fixture f;
  f.engine->write = [](const TokenRequest& request) {
    if (request.end_tokens.empty()) return TokenIds{7};
    return request.tokens.back() == 502 ? TokenIds{60, 61, 9, 62} : TokenIds{70, 71, 72, 73, 74};
  };
  RerankGroup group = make_group(2);
  group.max_reasoning_tokens = 5;
  group.end_tokens = {8, 9};
  group.answer_tokens = {31};
  const GroupResult result = f.run(group);
  CHECK(result.candidates[0].reasoning_tokens == TokenIds{60, 61});
  CHECK(result.candidates[1].reasoning_tokens == TokenIds{70, 71, 72, 73, 74});
  int num_reasoning = 0;
  for (const TokenRequest& request : f.engine->requests()) {
    if (request.max_new_tokens == 1) continue;
    ++num_reasoning;
    CHECK(request.max_new_tokens == 5);
    CHECK(request.end_tokens == group.end_tokens);
    CHECK(request.label_tokens.empty());
  }
  CHECK(num_reasoning == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    const CandidateResult& candidate = result.candidates[i];
    const TokenIds prompt = join({prefix_of(group), group.suffixes[i], candidate.reasoning_tokens, {31}});
    CHECK(candidate.label_logits[0] == 100 * sum(prompt) + 11);
  }
  CHECK(f.driver->stats().generated_tokens == 7);
}

TEST_CASE("group driver: a reasoning ends before the answer's own tokens") {
  Fixture f;
  f.engine->write = [](const TokenRequest& request) {
    return request.end_tokens.empty() ? TokenIds{7} : TokenIds{60, 31, 61, 31, 32, 5, 9};
  };
  RerankGroup group = make_group(1);
  group.max_reasoning_tokens = 9;
  group.end_tokens = {9};
  group.answer_tokens = {31, 32};
  const GroupResult result = f.run(group);
  CHECK(result.candidates[0].reasoning_tokens == TokenIds{60, 31, 61});
  const TokenIds prompt = join({prefix_of(group), group.suffixes[0], {60, 31, 61, 31, 32}});
  CHECK(result.candidates[0].label_logits[0] == 100 * sum(prompt) + 11);
}

TEST_CASE("group driver: a group without labels is done with its text") {
  Fixture f;
  f.engine->write = [](const TokenRequest& request) {
    return request.max_new_tokens > 1 ? TokenIds{5, 6} : TokenIds{7};
  };
  RerankGroup group = make_group(2);
  group.label_tokens.clear();
  group.max_reasoning_tokens = 2;
  const GroupResult result = f.run(group);
  CHECK(statuses(result) == std::vector<Status>(2, Status::kOk));
  CHECK(result.candidates[1].reasoning_tokens == TokenIds{5, 6});
  CHECK(f.engine->requests().size() == 3);
}

TEST_CASE("group driver: a failed prefix fails everybody who waits for it, and nobody else") {
  Fixture f;
  f.engine->hold();
  f.engine->spoil = [](const TokenRequest& request, TokenResponse& response) {
    if (request.label_tokens.empty() && request.tokens[6] == 100) response.error = "too long";
  };
  auto first = f.submit(make_group(2)), second = f.submit(make_group(2)), other = f.submit(make_group(2, 200));
  REQUIRE(f.engine->has_requests(2));
  f.engine->release_all();
  CHECK(Fixture::get(first).error == "the engine failed: too long");
  CHECK(Fixture::get(second).error == "the engine failed: too long");
  CHECK(Fixture::get(other).error.empty());
}

TEST_CASE("group driver: a failed candidate is one status; if all failed, the group has the reason") {
  Fixture f;
  f.engine->spoil = [](const TokenRequest& request, TokenResponse& response) {
    if (request.tokens.back() == 502) response.error = "bad luck";
  };
  CHECK(statuses(f.run(make_group(2))) == std::vector<Status>{Status::kFailed, Status::kOk});
  const GroupResult result = f.run(make_group(1));
  CHECK(result.error == "the engine failed: bad luck");
  CHECK(result.candidates.empty());
}

TEST_CASE("group driver: a refused request is its group's, and its other requests are taken back") {
  Fixture f;
  f.engine->hold();
  f.engine->refuses = [](const TokenRequest& request) { return request.tokens.back() == 512; };
  auto refused = f.submit(make_group(2));
  REQUIRE(f.engine->has_requests(1));
  f.engine->release(1);
  CHECK(Fixture::get(refused).error == "the engine refused a request: no such request");
  CHECK(f.engine->cancelled() == std::set<std::uint64_t>{2});
  f.engine->release_all();
  CHECK(statuses(f.run(make_group(1, 200))) == std::vector<Status>{Status::kOk});
}

TEST_CASE("group driver: a broken engine fails every group; what comes after its repair is computed, prefix and all") {
  Fixture f;
  f.run(make_group(2));
  f.engine->hold();
  auto first = f.submit(make_group(2)), second = f.submit(make_group(2, 200));
  REQUIRE(f.engine->has_requests(3 + 2 + 1));
  f.engine->break_down(true);
  CHECK(Fixture::get(first).error == "the engine failed: out of memory");
  CHECK(Fixture::get(second).error == "the engine failed: out of memory");
  f.engine->break_down(false);
  f.engine->release_all();
  CHECK(f.run(make_group(2)).error.empty());
  CHECK(f.engine->requests().size() == 6 + 3);
}

TEST_CASE("group driver: a cancelled group is told at once, and its requests are cancelled") {
  Fixture f;
  f.engine->hold();
  Executor::Id id = 0;
  auto future = f.submit(make_group(3), &id);
  REQUIRE(f.engine->has_requests(1));
  f.engine->release(1);
  REQUIRE(f.engine->has_requests(4));
  f.engine->release(2);
  while (f.driver->stats().candidates_done < 1) std::this_thread::yield();
  f.driver->cancel(id);
  f.driver->cancel(12345);  // nobody's
  CHECK(statuses(Fixture::get(future)) == std::vector<Status>{Status::kOk, Status::kCancelled, Status::kCancelled});
  f.engine->release_all();
  f.run(make_group(1));  // the late responses went by
  CHECK(f.engine->cancelled() == std::set<std::uint64_t>{3, 4});
}

TEST_CASE("group driver: a warm-up outlives its group, for those who wait for it") {
  Fixture f;
  f.engine->hold();
  Executor::Id id = 0;
  auto first = f.submit(make_group(2), &id), second = f.submit(make_group(2));
  REQUIRE(f.engine->has_requests(1));
  f.driver->cancel(id);
  CHECK(statuses(Fixture::get(first)) == std::vector<Status>(2, Status::kCancelled));
  f.engine->release_all();
  CHECK(statuses(Fixture::get(second)) == std::vector<Status>(2, Status::kOk));
  CHECK(f.engine->cancelled().empty());
}

TEST_CASE("group driver: what a cancelled group's warm-up computed is found by the next group") {
  Fixture f;
  f.engine->hold();
  Executor::Id id = 0;
  auto cancelled = f.submit(make_group(2), &id);
  REQUIRE(f.engine->has_requests(1));
  f.driver->cancel(id);
  Fixture::get(cancelled);
  f.engine->release_all();
  while (f.driver->stats().prompt_tokens_computed == 0) std::this_thread::yield();
  f.run(make_group(2));
  CHECK(f.engine->requests().size() == 1 + 2);
}

TEST_CASE("group driver: candidates without a result by the deadline are expired") {
  Fixture f;
  f.engine->hold();
  RerankGroup group = make_group(2);
  group.timeout_s = 0.01;
  auto future = f.submit(group);
  CHECK(statuses(Fixture::get(future)) == std::vector<Status>(2, Status::kExpired));
}

TEST_CASE("group driver: closing tells everybody, and nothing is taken after it") {
  Fixture f;
  f.engine->hold();
  auto started = f.submit(make_group(2));
  REQUIRE(f.engine->has_requests(1));
  auto waiting = f.submit(make_group(2));
  f.driver->close();
  CHECK(Fixture::get(started).error == "the executor was closed");
  CHECK(Fixture::get(waiting).error == "the executor was closed");
  CHECK(f.engine->is_shut_down());
  CHECK_THROWS_AS(f.submit(make_group(1)), std::runtime_error);
  f.driver->close();
}

TEST_CASE("group driver: the engine gets no more than it has blocks and places for") {
  // A candidate needs two blocks beside the prefix's three: its tail, suffix and one new token are five tokens.
  TokenEngineStats stats;
  stats.blocks_total = 3 + 4 * 2 + 1;
  Fixture by_blocks({}, stats);
  CHECK(statuses(by_blocks.run(make_group(20))) == std::vector<Status>(20, Status::kOk));
  CHECK(by_blocks.engine->most_waiting() == 4);

  GroupDriverOptions options;
  options.max_requests = 3;
  Fixture by_places(options);
  CHECK(statuses(by_places.run(make_group(20))) == std::vector<Status>(20, Status::kOk));
  CHECK(by_places.engine->most_waiting() == 3);

  options = {};
  options.max_queued = 5;
  Fixture by_queue(options);
  by_queue.engine->hold();
  auto future = by_queue.submit(make_group(20));
  REQUIRE(by_queue.engine->has_requests(1));
  by_queue.engine->release_all();
  CHECK(statuses(Fixture::get(future)) == std::vector<Status>(20, Status::kOk));

  // The engine says that its queue is full: one at a time, so that something goes on.
  stats = {};
  stats.queued_requests = 1000;
  Fixture full({}, stats);
  CHECK(statuses(full.run(make_group(5))) == std::vector<Status>(5, Status::kOk));
  CHECK(full.engine->most_waiting() == 1);
}

TEST_CASE("group driver: statistics are the engine's and our own") {
  TokenEngineStats stats;
  stats.blocks_total = 100;
  stats.blocks_free = 70;
  stats.blocks_in_use = 20;
  stats.compute_s = 1.5;
  Fixture f({}, stats);
  CHECK(f.driver->stats().blocks_total == 100);
  CHECK(f.driver->stats().block_size == kBlock);
  f.run(make_group(3));
  f.run(make_group(1));
  const ExecutorStats out = f.driver->stats();
  CHECK(out.groups_done == 2);
  CHECK(out.candidates_done == 4);
  // Four candidates of 16 tokens, each with three shared blocks; the warm-up found nothing.
  CHECK(out.prompt_tokens_reused == 4 * 12);
  CHECK(out.prompt_tokens_computed == 13 + 4 * 4);
  CHECK(out.blocks_free == 70);
  CHECK(out.blocks_in_use == 20);
  CHECK(out.blocks_cached == 10);
  CHECK(out.compute_s == 1.5);
  CHECK(out.steps > 0);
}

TEST_CASE("group driver: groups that can never run are refused, with the field and the limit") {
  TokenEngineStats stats;
  stats.blocks_total = 6;
  Fixture f({}, stats);
  RerankGroup group = make_group(1);
  group.suffixes[0] = iota(500, 52);
  CHECK_THROWS_WITH_AS(f.submit(group),
                       "rerank group: suffix 0 makes 65 tokens with its prefix, reasoning and answer; the limit is 64",
                       std::invalid_argument);
  group.suffixes[0] = iota(500, 15);
  CHECK_THROWS_WITH_AS(f.submit(group),
                       "rerank group: suffix 0 needs 8 KV blocks with its prefix, the engine has 6; give it a larger "
                       "KV cache",
                       std::invalid_argument);
  group = make_group(1);
  group.label_tokens = {1000};
  CHECK_THROWS_WITH_AS(f.submit(group), "rerank group: token 1000 in label_tokens is outside the vocabulary of 1000",
                       std::invalid_argument);
  group = make_group(0);
  CHECK_THROWS_WITH_AS(f.submit(group), "rerank group: suffixes is empty", std::invalid_argument);
  GroupDriverOptions options;
  CHECK_THROWS_WITH_AS(GroupDriver(std::make_unique<TokenEngineDouble>(kBlock), options),
                       "vocab_size is 0; the least is 1", std::invalid_argument);
}

TEST_CASE("group driver: many threads submit and cancel, and everybody hears once") {
  GroupDriverOptions options;
  options.max_requests = 7;
  options.known_prefixes = 2;
  Fixture f(options);
  std::vector<std::thread> threads;
  std::vector<std::vector<std::future<GroupResult>>> futures(4);
  for (std::size_t t = 0; t < futures.size(); ++t) {
    threads.emplace_back([&f, &mine = futures[t], t] {
      for (int i = 0; i < 25; ++i) {
        Executor::Id id = 0;
        mine.push_back(f.submit(make_group(1 + i % 4, 100 + static_cast<TokenId>(t) + i % 5), &id));
        if (i % 6 == 5) f.driver->cancel(id);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (auto& mine : futures) {
    for (std::size_t i = 0; i < mine.size(); ++i) {
      const GroupResult result = Fixture::get(mine[i]);
      CHECK(result.error.empty());
      if (i % 6 != 5) CHECK(statuses(result) == std::vector<Status>(1 + i % 4, Status::kOk));
    }
  }
  CHECK(f.driver->stats().groups_done == 100);
  CHECK(f.engine->most_waiting() <= 7);
}

}  // namespace exp3rt
