#include "scheduler/scheduler.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <random>

namespace exp3rt {
namespace {

// A scheduler whose "model" says: the label logit of a row is the sum of all tokens it attends to, and the next token
// is 7 or what `next_token` makes of the sum. It reads the tokens back out of the blocks, so that a wrong block, slot or
// context shows in the sum.
class Fixture {
 public:
  Fixture(int num_blocks, int max_batch_tokens, std::size_t max_item_tokens = 1000, int max_drafted_rows = 32)
      : pool_(num_blocks),
        cache_(pool_),
        items_(max_item_tokens * sizeof(TokenId), [](int tokens) { return z(tokens) * sizeof(TokenId); }),
        scheduler_(pool_, cache_, items_, max_batch_tokens, max_drafted_rows) {}

  GroupId add(RerankGroup request) {
    scheduler_.check(request);
    auto group = std::make_unique<GroupState>();
    const GroupId id = group->id = ++last_id_;
    group->request = std::move(request);
    group->submitted = Clock::now();
    group->on_done = [this, id](GroupResult result) { results[id] = std::move(result); };
    scheduler_.add(std::move(group));
    return id;
  }

  void step() {
    const Batch& batch = scheduler_.next_batch();
    rows = batch.num_rows();
    precise_rows = batch.precise_rows;
    num_passing_blocks = batch.num_passing_blocks;
    for (int i = 0; i < num_passing_blocks; ++i) memory_.erase(passing_block(i));
    for (const BlockId block : batch.fresh_blocks) memory_[block].assign(kBlockTokens, -1000000);
    for (const BatchSlice& slice : batch.slices) {
      for (int i = 0; i < slice.num_rows; ++i) {
        const int own = slice.first_own_token + i;
        memory_.at(slice.own_blocks[z(own / kBlockTokens)])[z(own % kBlockTokens)] =
            batch.tokens[z(slice.first_row + i)];
      }
    }
    std::vector<OutputValue> values;
    for (const OutputRequest& output : batch.outputs) values.push_back(value(batch, output));
    for (const ItemCopy& copy : batch.item_copies) {
      auto* to = reinterpret_cast<TokenId*>(copy.to);
      for (int i = 0; i < copy.num_tokens; ++i) {
        to[i] = memory_.at(copy.blocks[z(i / kBlockTokens)])[z(i % kBlockTokens)];
      }
    }
    if (!batch.empty()) scheduler_.complete(std::move(values));
    for (FinishedGroup& group : scheduler_.take_finished()) group.on_done(std::move(group.result));
    const ExecutorStats stats = scheduler_.stats();
    REQUIRE(stats.blocks_free + stats.blocks_cached + stats.blocks_in_use == stats.blocks_total);
  }

  void run() {
    for (int i = 0; i < 10000 && !scheduler_.idle(); ++i) step();
    REQUIRE(scheduler_.idle());
  }

  static int sum_of(const ItemKv& item) {
    const auto* tokens = reinterpret_cast<const TokenId*>(item.data.get());
    return std::accumulate(tokens, tokens + item.num_tokens, 0);
  }

  Scheduler& scheduler() { return scheduler_; }
  const ItemCache& items() const { return items_; }
  std::map<GroupId, GroupResult> results;
  int rows = 0;
  int num_passing_blocks = 0;
  std::vector<int> precise_rows;
  std::function<TokenId(int)> next_token = [](int) { return 7; };

 private:
  static std::size_t z(int i) { return static_cast<std::size_t>(i); }

  OutputValue value(const Batch& batch, const OutputRequest& output) const {
    int sum = 0;
    for (const BatchSlice& slice : batch.slices) {
      if (output.row < slice.first_row || output.row >= slice.first_row + slice.num_rows) continue;
      for (const KeyBlock& block : slice.context) {
        for (int i = 0; i < block.num_tokens; ++i) sum += memory_.at(block.block)[z(i)];
      }
      if (slice.item != nullptr) sum += sum_of(*slice.item);
      const int own = slice.first_own_token + output.row - slice.first_row;
      for (int i = 0; i <= own; ++i) {
        sum += memory_.at(slice.own_blocks[z(i / kBlockTokens)])[z(i % kBlockTokens)];
      }
    }
    if (output.labels.empty()) return {next_token(sum), {}};
    const bool poisoned = batch.tokens[z(output.row)] == 666;
    return {-1, {poisoned ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(sum)}};
  }

  BlockPool pool_;
  PrefixCache cache_;
  ItemCache items_;
  Scheduler scheduler_;
  std::map<BlockId, TokenIds> memory_;  // [block][slot]; of passing blocks, what this batch wrote
  GroupId last_id_ = 0;
};

RerankGroup group(std::vector<TokenIds> prefix, std::vector<TokenIds> suffixes, int reasoning = 0) {
  RerankGroup request;
  request.prefix = std::move(prefix);
  request.suffixes = std::move(suffixes);
  request.label_tokens = {1};
  request.answer_tokens = {3, 4};
  request.max_reasoning_tokens = reasoning;
  return request;
}

float expected(const RerankGroup& request, std::size_t candidate) {
  int sum = 0;
  const auto add = [&sum](const TokenIds& tokens) {
    for (const TokenId t : tokens) sum += t;
  };
  for (const TokenIds& segment : request.prefix) add(segment);
  add(request.suffixes[candidate]);
  add(request.answer_tokens);
  return static_cast<float>(sum + 7 * request.max_reasoning_tokens);
}

}  // namespace

TEST_CASE("scheduler: what is scored within one batch leaves the pool's blocks alone") {
  const RerankGroup scored = group({{1, 2}}, {TokenIds(5, 1), TokenIds(62, 2), TokenIds(100, 3)});
  Fixture whole(20, 1000);
  const GroupId id = whole.add(scored);
  whole.step();
  CHECK(whole.num_passing_blocks == 1 + 1 + 2);  // with two tokens of the answer each
  Fixture split(20, 90);                         // the third in two parts
  split.add(scored);
  split.step();
  CHECK(split.num_passing_blocks == 1 + 1);
  split.step();
  CHECK(split.num_passing_blocks == 0);
  split.run();
  Fixture kept(20, 1000);
  RerankGroup reused = scored;
  reused.reuse_suffixes = true;
  kept.add(reused);
  kept.step();
  CHECK(kept.num_passing_blocks == 0);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto logit = [&](const Fixture& fixture) { return fixture.results.at(id).candidates[i].label_logits.at(0); };
    CHECK(logit(whole) == expected(scored, i));
    CHECK(logit(split) == expected(scored, i));
    CHECK(logit(kept) == expected(scored, i));
  }
}

TEST_CASE("scheduler: score mode computes the prefix once and reads each candidate's own context") {
  Fixture f(32, 50);
  const RerankGroup request = group({TokenIds(70, 1), TokenIds(3, 2)}, {TokenIds(5, 10), TokenIds(100, 20), {30}});
  const GroupId id = f.add(request);
  f.run();
  REQUIRE(f.results.count(id) == 1);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(f.results[id].candidates[i].status == Status::kOk);
    CHECK(f.results[id].candidates[i].label_logits.at(0) == expected(request, i));
  }
  const ExecutorStats stats = f.scheduler().stats();
  CHECK(stats.prompt_tokens_computed == 73 + 106 + 3 * 2);
  CHECK(stats.prompt_tokens_reused == 2 * 73);
  CHECK(stats.blocks_cached == 3);
  f.add(request);  // a user who comes back
  f.run();
  CHECK(f.scheduler().stats().prompt_tokens_computed == 73 + 2 * (106 + 3 * 2));
}

TEST_CASE("scheduler: prefixes and the last tokens before a label are precise rows of a batch") {
  Fixture f(32, 200);
  f.add(group({TokenIds(20, 1)}, {TokenIds(30, 2), TokenIds(40, 5)}));
  f.step();
  CHECK(f.rows == 20 + 32 + 42);
  std::vector<int> expected(20 + 8 + 8);
  std::iota(expected.begin(), expected.begin() + 20, 0);
  std::iota(expected.begin() + 20, expected.begin() + 28, 20 + 24);
  std::iota(expected.begin() + 28, expected.end(), 20 + 32 + 34);
  CHECK(f.precise_rows == expected);
  f.run();
}

TEST_CASE("scheduler: reasoning is generated to its limit or its end, then the answer is forced") {
  Fixture f(32, 64);
  const RerankGroup full = group({{1, 2}}, {{10}, {20, 21}}, 5);
  const GroupId id = f.add(full);
  RerankGroup ended = full;
  ended.end_tokens = {7};
  const GroupId ended_id = f.add(ended);
  f.run();
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(f.results[id].candidates[i].reasoning_tokens == TokenIds(5, 7));
    CHECK(f.results[id].candidates[i].label_logits.at(0) == expected(full, i));
    CHECK(f.results[ended_id].candidates[i].reasoning_tokens.empty());
    ended.max_reasoning_tokens = 0;
    CHECK(f.results[ended_id].candidates[i].label_logits.at(0) == expected(ended, i));
    ended.max_reasoning_tokens = 5;
  }
  CHECK(f.scheduler().stats().generated_tokens == 10);
  CHECK(f.scheduler().stats().prompt_tokens_computed == 2 + 2 * (3 + 2 * 2));
}

TEST_CASE("scheduler: a reasoning ends before the answer's own tokens, which are then computed as the answer") {
  for (const int limit : {4, 9}) {
    Fixture f(32, 64);
    f.next_token = [](int sum) { return sum == 3 + 10 + 2 * 7 ? 3 : sum == 3 + 10 + 2 * 7 + 3 ? 4 : 7; };
    const GroupId id = f.add(group({{1, 2}}, {{10}}, limit));
    RerankGroup cut = group({{1, 2}}, {{10}}, 2);
    const GroupId cut_id = f.add(cut);
    std::size_t precise = 0;
    while (!f.scheduler().idle()) {
      f.step();
      precise = f.precise_rows.size();
    }
    CHECK(f.results[id].candidates[0].reasoning_tokens == TokenIds(2, 7));
    CHECK(f.results[id].candidates[0].label_logits.at(0) == expected(cut, 0));
    CHECK(f.results[id].candidates[0].label_logits == f.results[cut_id].candidates[0].label_logits);
    CHECK(precise == 2);  // the answer's, in the last step
  }
}

TEST_CASE("scheduler: a group that reuses suffixes computes only what scoring did not leave behind") {
  Fixture f(64, 50);
  RerankGroup score = group({TokenIds(70, 1)}, {TokenIds(200, 10), TokenIds(134, 20), TokenIds(133, 30)});
  score.reuse_suffixes = true;
  f.add(score);
  f.run();
  CHECK(f.scheduler().stats().blocks_cached == 2 + 3 + 2 + 1);  // of 133 tokens, the 2nd block has a precise row
  RerankGroup reason = score;
  reason.max_reasoning_tokens = 5;
  const std::int64_t before = f.scheduler().stats().prompt_tokens_computed;
  const GroupId id = f.add(reason);
  f.run();
  CHECK(f.scheduler().stats().prompt_tokens_computed - before == (200 - 192) + (134 - 128) + (133 - 64) + 3 * 2);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(f.results[id].candidates[i].label_logits.at(0) == expected(reason, i));
  }
  reason.reuse_suffixes = false;  // and one that does not neither reads nor leaves anything
  const std::int64_t cached = f.scheduler().stats().blocks_cached;
  const std::int64_t middle = f.scheduler().stats().prompt_tokens_computed;
  f.add(reason);
  f.run();
  CHECK(f.scheduler().stats().prompt_tokens_computed - middle == 200 + 134 + 133 + 3 * 2);
  CHECK(f.scheduler().stats().blocks_cached == cached);
}

TEST_CASE("scheduler: a suffix whose last whole block ends the prompt is not reused to its end") {
  Fixture f(64, 50);
  RerankGroup request = group({}, {TokenIds(128, 10)}, 3);
  request.reuse_suffixes = true;
  f.add(request);
  f.run();
  CHECK(f.scheduler().stats().blocks_cached == 1);
  const GroupId again = f.add(request);
  f.run();
  CHECK(f.results[again].candidates[0].label_logits.at(0) == expected(request, 0));
}

TEST_CASE("scheduler: a group without labels generates to its limit or its end, and is done") {
  Fixture f(32, 64);
  RerankGroup request = group({TokenIds(70, 1)}, {{10}, {20, 21}}, 5);
  request.label_tokens.clear();
  request.answer_tokens.clear();
  const GroupId id = f.add(request);
  RerankGroup ended = request;
  ended.end_tokens = {7};
  const GroupId ended_id = f.add(ended);
  const RerankGroup rated = group({TokenIds(70, 1)}, {{9}}, 3);  // in the same batches
  const GroupId rated_id = f.add(rated);
  f.run();
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(f.results[id].candidates[i].status == Status::kOk);
    CHECK(f.results[id].candidates[i].reasoning_tokens == TokenIds(5, 7));
    CHECK(f.results[id].candidates[i].label_logits.empty());
    CHECK(f.results[ended_id].candidates[i].status == Status::kOk);
    CHECK(f.results[ended_id].candidates[i].reasoning_tokens.empty());
  }
  CHECK(f.results[rated_id].candidates[0].label_logits.at(0) == expected(rated, 0));
  CHECK(f.scheduler().stats().generated_tokens == 2 * 5 + 3);
  CHECK(f.scheduler().stats().prompt_tokens_computed == 70 + 2 * 3 + 1 + 2);  // none of the generated ones
  request.answer_tokens = {3};
  CHECK_THROWS_WITH_AS(f.add(request), doctest::Contains("answer_tokens is not"), std::invalid_argument);
  ended.max_reasoning_tokens = 0;
  CHECK_THROWS_WITH_AS(f.add(ended), doctest::Contains("max_reasoning_tokens is 0"), std::invalid_argument);
}

TEST_CASE("scheduler: a candidate without finite logits fails alone") {
  Fixture f(8, 64);
  RerankGroup request = group({{1}}, {{2}, {3}});
  request.answer_tokens.clear();
  request.suffixes[0] = {666};
  const GroupId id = f.add(request);
  f.run();
  CHECK(f.results[id].candidates[0].status == Status::kFailed);
  CHECK(f.results[id].candidates[0].label_logits.empty());
  CHECK(f.results[id].candidates[1].status == Status::kOk);
}

TEST_CASE("scheduler: cancelled and expired groups leave, the others go on, and a shared prefix is still computed") {
  Fixture f(64, 16);
  const TokenIds shared(100, 1);
  const GroupId cancelled = f.add(group({shared}, std::vector<TokenIds>(5, TokenIds(30, 2))));
  const RerankGroup request = group({shared}, {{9}});
  const GroupId kept = f.add(request);
  RerankGroup late = group({{5}}, {{6}});
  late.timeout_s = 1e-9;
  const GroupId expired = f.add(late);
  f.step();
  f.scheduler().cancel(cancelled);
  f.scheduler().cancel(12345);
  f.run();
  for (const CandidateResult& c : f.results[cancelled].candidates) CHECK(c.status == Status::kCancelled);
  CHECK(f.results[cancelled].candidates.size() == 5);
  CHECK(f.results[expired].candidates.at(0).status == Status::kExpired);
  CHECK(f.results[kept].candidates.at(0).label_logits.at(0) == expected(request, 0));
}

TEST_CASE("scheduler: an error reaches every group once, and work goes on afterwards") {
  Fixture f(64, 16);
  const GroupId running = f.add(group({TokenIds(100, 1)}, {{2}, {3}}));
  const GroupId waiting = f.add(group({{4}}, {{5}}));
  f.step();
  f.scheduler().fail_all("broken");
  for (FinishedGroup& g : f.scheduler().take_finished()) g.on_done(std::move(g.result));
  CHECK(f.results[running].error == "broken");
  CHECK(f.results[waiting].error == "broken");
  CHECK(f.scheduler().stats().blocks_free == 64);
  const RerankGroup request = group({TokenIds(100, 1)}, {{2}});
  const GroupId next = f.add(request);
  f.run();
  CHECK(f.results[next].candidates.at(0).label_logits.at(0) == expected(request, 0));
}

TEST_CASE("scheduler: what can never run is refused, naming what and why") {
  Fixture f(2, 16);
  CHECK_THROWS_WITH_AS(f.add(group({{1}}, {})), doctest::Contains("suffixes is empty"), std::invalid_argument);
  CHECK_THROWS_WITH_AS(f.add(group({}, {{}})), doctest::Contains("suffix 0 is empty"), std::invalid_argument);
  CHECK_THROWS_WITH_AS(f.add(group({TokenIds(65, 1)}, {{1}})), doctest::Contains("needs 3 KV blocks"),
                       std::invalid_argument);
  RerankGroup request = group({}, {{1}}, 3);
  request.answer_tokens.clear();
  CHECK_THROWS_WITH_AS(f.add(request), doctest::Contains("answer_tokens"), std::invalid_argument);
}

// Random groups over a pool so small that they must wait for each other and evict each other's prefixes.
TEST_CASE("scheduler: any mix of groups in any pool finishes, each with its own answer") {
  std::mt19937 random(3);
  const auto pick = [&random](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  for (int round = 0; round < 40; ++round) {
    Fixture f(12 + pick(12), 1 + pick(90));
    std::map<GroupId, RerankGroup> requests;
    for (int g = 0; g < 12; ++g) {
      std::vector<TokenIds> prefix, suffixes;
      for (int s = pick(3); s > 0; --s) prefix.push_back(TokenIds(static_cast<std::size_t>(1 + pick(90)), 1 + pick(3)));
      for (int s = pick(6); s >= 0; --s)
        suffixes.push_back(TokenIds(static_cast<std::size_t>(1 + pick(200)), 10 + pick(3)));
      RerankGroup request = group(prefix, suffixes, pick(2) * pick(80));
      request.reuse_suffixes = pick(2) == 0;
      requests[f.add(request)] = request;
      if (pick(3) == 0) f.step();
      CHECK(f.rows <= 91);
    }
    f.run();
    for (const auto& [id, request] : requests) {
      const GroupResult& result = f.results[id];
      REQUIRE(result.candidates.size() == request.suffixes.size());
      for (std::size_t i = 0; i < request.suffixes.size(); ++i) {
        REQUIRE(result.candidates[i].status == Status::kOk);
        REQUIRE(result.candidates[i].label_logits.at(0) == expected(request, i));
      }
    }
  }
}

TEST_CASE("scheduler: drafts, right or wrong, leave no trace") {
  std::vector<TokenIds> suffixes;
  for (int i = 0; i < 40; ++i) suffixes.push_back({i, 5, 6, 7, 5, 6, 7, 5, 6});
  RerankGroup together = group({{1, 2}}, suffixes, 50);
  together.end_tokens = {9};
  SUBCASE("an answer that is never written by itself") {}
  SUBCASE("an answer that ends reasonings") { together.answer_tokens = {6, 6, 6, 7}; }
  const auto next = [](int sum) { return sum % 97 == 0 ? 9 : 5 + sum / 16 % 3; };  // often as before, not always

  Fixture many(200, 4096), few(200, 4096), many_drafted(200, 4096, 1000, 4096);
  many.next_token = few.next_token = many_drafted.next_token = next;
  const GroupId id = many.add(together), drafted_id = many_drafted.add(together);
  many.run();
  many_drafted.run();
  std::size_t longest = 0;
  for (std::size_t i = 0; i < suffixes.size(); ++i) {
    RerankGroup alone = together;
    alone.suffixes = {suffixes[i]};
    const GroupId one = few.add(alone);
    few.run();
    const CandidateResult &expect = many.results[id].candidates[i], &found = few.results[one].candidates[0];
    CHECK(found.reasoning_tokens == expect.reasoning_tokens);
    CHECK(found.label_logits == expect.label_logits);
    CHECK(many_drafted.results[drafted_id].candidates[i].reasoning_tokens == expect.reasoning_tokens);
    CHECK(many_drafted.results[drafted_id].candidates[i].label_logits == expect.label_logits);
    longest = std::max(longest, found.reasoning_tokens.size());
  }
  CHECK(longest > 10);
  const ExecutorStats plain = many.scheduler().stats();
  for (Fixture* fixture : {&few, &many_drafted}) {
    const ExecutorStats drafted = fixture->scheduler().stats();
    CHECK(drafted.draft_tokens > drafted.draft_tokens_accepted);
    CHECK(drafted.draft_tokens_accepted > 100);
    CHECK(drafted.generated_tokens == plain.generated_tokens);
    CHECK(drafted.prompt_tokens_computed == plain.prompt_tokens_computed);
  }
}

TEST_CASE("prompt_lookup: what followed the same tokens last, in the text itself or else in any") {
  PromptLookup lookup;
  CHECK(lookup.continuation(0, 4).empty());
  lookup.append(0, TokenIds{1, 2, 3, 4, 5, 6});
  lookup.append(1, TokenIds{9, 1, 2});
  CHECK(lookup.continuation(1, 4).empty());
  lookup.append(1, TokenIds{3});
  CHECK(lookup.continuation(1, 2) == TokenIds{4, 5});
  CHECK(lookup.continuation(1, 9) == TokenIds{4, 5, 6});
  lookup.append(1, TokenIds{8, 1, 2, 3});
  CHECK(lookup.continuation(1, 2) == TokenIds{8, 1});
  CHECK(lookup.continuation(0, 4).empty());
  lookup.append(0, TokenIds{1, 2, 3});
  CHECK(lookup.continuation(0, 3) == TokenIds{4, 5, 6});  // in text 1 they stood later, before 8
}

namespace {

// The item of candidate i has `item_tokens` tokens of its own kind.
RerankGroup segmented(TokenIds user, std::vector<int> items, int item_tokens = 70, int reasoning = 0) {
  RerankGroup request = group({TokenIds(10, 1), std::move(user)}, std::vector<TokenIds>(items.size(), {5}), reasoning);
  for (const int item : items) request.items.emplace_back(item_tokens, item);
  request.item_position = 200;
  request.suffix_position = 400;
  return request;
}

void check_sums(const GroupResult& result, const RerankGroup& request) {
  REQUIRE(result.candidates.size() == request.items.size());
  for (std::size_t i = 0; i < request.items.size(); ++i) {
    CHECK(result.candidates[i].status == Status::kOk);
    const TokenIds& item = request.items[i];
    const int sum = std::accumulate(item.begin(), item.end(), 0);
    CHECK(result.candidates[i].label_logits.at(0) == expected(request, i) + static_cast<float>(sum));
  }
}

ItemKvPtr stored(const TokenIds& tokens) {
  std::shared_ptr<TokenId[]> copy(new TokenId[tokens.size()]);
  std::copy(tokens.begin(), tokens.end(), copy.get());
  const auto* bytes = reinterpret_cast<const std::byte*>(copy.get());
  return std::make_shared<const ItemKv>(ItemKv{std::shared_ptr<const std::byte>(copy, bytes),
                                               tokens.size() * sizeof(TokenId), static_cast<int>(tokens.size())});
}

}  // namespace

TEST_CASE("scheduler: an item is computed once for all users, and seen by candidates alone") {
  Fixture f(32, 90);
  const RerankGroup one = segmented(TokenIds(20, 2), {11, 12, 11}), two = segmented(TokenIds(5, 3), {12, 13});
  const GroupId first = f.add(one), second = f.add(two);
  f.run();
  check_sums(f.results[first], one);
  check_sums(f.results[second], two);
  const ExecutorStats stats = f.scheduler().stats();
  CHECK(stats.items_computed == 3);
  CHECK(stats.items_in_memory == 2);
  CHECK(stats.prompt_tokens_computed == 10 + 20 + 5 + 3 * 70 + 5 * 3);
  CHECK(f.items().num_bytes() == 3 * 70 * sizeof(TokenId));
  CHECK(stats.blocks_in_use == 0);
}

TEST_CASE("scheduler: stored items are read where they lie") {
  Fixture f(32, 90);
  RerankGroup request = segmented(TokenIds(20, 2), {11, 12});
  request.stored = {stored(request.items[0]), nullptr};
  const GroupId id = f.add(request);
  f.run();
  check_sums(f.results[id], request);
  CHECK(f.scheduler().stats().items_stored == 1);
  CHECK(f.scheduler().stats().items_computed == 1);
  request.stored = {stored(TokenIds(69, 11)), nullptr};
  CHECK_THROWS_WITH(f.add(request), "rerank group: item 0: what is stored is of another size");
}

TEST_CASE("scheduler: items enter and leave a small cache, and none is lost") {
  std::mt19937 random(5);
  for (const int room : {70, 150, 400}) {
    Fixture f(12, 40, static_cast<std::size_t>(room));
    std::map<GroupId, RerankGroup> requests;
    for (int user = 0; user < 30; ++user) {
      std::vector<int> items;
      for (int i = 0; i < 6; ++i) items.push_back(static_cast<int>(random() % 8));
      const RerankGroup request = segmented(TokenIds(1 + random() % 80, user), items, 70, user % 3);
      requests[f.add(request)] = request;
      if (random() % 2) f.step();
    }
    f.run();
    for (const auto& [id, request] : requests) check_sums(f.results[id], request);
    CHECK(f.items().num_bytes() <= static_cast<std::size_t>(room) * sizeof(TokenId));
    CHECK(f.scheduler().stats().blocks_in_use == 0);
  }
  Fixture small(12, 40, 69);
  CHECK_THROWS_WITH(small.add(segmented({2}, {1})),
                    "rerank group: item 0 takes 280 bytes, the item cache holds 276; give it more");
}

TEST_CASE("scheduler: a group without suffixes hands back its items' keys and values") {
  Fixture f(16, 50, 150);
  RerankGroup request = segmented({}, {4, 5, 4, 6});
  request.suffixes.clear();
  request.label_tokens.clear();
  request.answer_tokens.clear();
  request.prefix = {TokenIds(10, 1)};
  const GroupId id = f.add(request);
  f.run();
  REQUIRE(f.results[id].candidates.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(Fixture::sum_of(*f.results[id].candidates[i].item_kv) == 70 * request.items[i].front());
  }
  const GroupId again = f.add(request);
  f.run();
  CHECK(f.results[again].candidates[3].status == Status::kOk);
}

TEST_CASE("scheduler: a cancelled group's item is finished for those who wait for it") {
  Fixture f(32, 30);
  const GroupId first = f.add(segmented(TokenIds(20, 2), {11}));
  f.step();
  f.step();
  const RerankGroup other = segmented(TokenIds(4, 3), {11});
  const GroupId second = f.add(other);
  f.scheduler().cancel(first);
  f.run();
  CHECK(f.results[first].candidates[0].status == Status::kCancelled);
  check_sums(f.results[second], other);
  CHECK(f.scheduler().stats().items_computed == 1);
}

}  // namespace exp3rt
