#include "executor/group_driver.h"

#include <algorithm>
#include <exception>
#include <stdexcept>
#include <utility>

#include "executor/group_state.h"

namespace exp3rt {
namespace {

// How long a new group waits at most until the thread, awaiting responses, sees it.
constexpr std::chrono::milliseconds kPoll{2};

double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

const GroupDriverOptions& checked(const GroupDriverOptions& options) {
  const auto require = [](int value, int least, const char* name) {
    if (value >= least) return;
    throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) + "; the least is " +
                                std::to_string(least));
  };
  require(options.vocab_size, 1, "vocab_size");
  require(options.max_context, 2, "max_context");
  require(options.tokens_per_block, 1, "tokens_per_block");
  require(options.max_requests, 1, "max_requests");
  require(options.max_queued, 1, "max_queued");
  require(options.max_warm_ups, 1, "max_warm_ups");
  require(options.known_prefixes, 0, "known_prefixes");
  return options;
}

}  // namespace

GroupDriver::GroupDriver(std::unique_ptr<TokenEngine> engine, const GroupDriverOptions& options)
    : engine_(std::move(engine)), options_(checked(options)), engine_stats_(engine_->stats()) {
  deliver();
  thread_ = std::thread([this] { loop(); });
}

GroupDriver::~GroupDriver() { close(); }

void GroupDriver::close() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Executor::Id GroupDriver::submit(RerankGroup request, OnDone on_done) {
  check(request);
  auto group = std::make_unique<Group>(std::move(request), options_);
  group->on_done = std::move(on_done);
  group->num_unfinished = group->request.suffixes.size();
  group->done.resize(group->num_unfinished);
  group->result.candidates.resize(group->num_unfinished);
  Id id = 0;
  {
    const std::lock_guard lock(mutex_);
    if (closing_) throw std::runtime_error("the executor is closed");
    id = group->id = next_id_++;
    inbox_.push_back(std::move(group));
  }
  wake_.notify_all();
  return id;
}

void GroupDriver::check(const RerankGroup& group) const {
  check_fields(group);
  if (!group.items.empty()) throw std::invalid_argument("rerank group: items need the CPU's executor");
  check_tokens(group, options_.vocab_size, options_.max_context - 1);
  const std::int64_t total = stats().blocks_total;
  if (total == 0) return;
  const GroupPlan plan(group, options_.tokens_per_block);
  for (std::size_t i = 0; i < group.suffixes.size(); ++i) {
    const int needed = plan.num_shared_blocks() + plan.num_own_blocks(group, i);
    if (needed <= total) continue;
    throw std::invalid_argument("rerank group: suffix " + std::to_string(i) + " needs " + std::to_string(needed) +
                                " KV blocks with its prefix, the engine has " + std::to_string(total) +
                                "; give it a larger KV cache");
  }
}

void GroupDriver::cancel(Id id) {
  const std::lock_guard lock(mutex_);
  cancelled_.push_back(id);
}

ExecutorStats GroupDriver::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void GroupDriver::loop() {
  while (take_inbox()) {
    try {
      stop_cancelled_and_expired();
      fill();
      if (!flights_.empty()) {
        for (TokenResponse& response : engine_->await(kPoll)) take(std::move(response));
      }
    } catch (const std::exception& error) {
      fail_all(std::string("the engine failed: ") + error.what());
    }
    remove_finished();
    deliver();
  }
  fail_all("the executor was closed");
  remove_finished();
  deliver();
  try {
    engine_->shutdown();
  } catch (const std::exception&) {  // nobody is left to be told
  }
}

bool GroupDriver::take_inbox() {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [this] { return closing_ || !inbox_.empty() || !groups_.empty() || !flights_.empty(); });
  for (auto& group : inbox_) {
    const Id id = group->id;
    groups_.emplace(id, std::move(group));
  }
  inbox_.clear();
  to_cancel_ = std::exchange(cancelled_, {});  // with the inbox, so that no group is cancelled before it is known
  return !closing_;
}

void GroupDriver::stop_cancelled_and_expired() {
  for (const Id id : std::exchange(to_cancel_, {})) {
    if (const auto found = groups_.find(id); found != groups_.end()) stop(*found->second, Status::kCancelled);
  }
  const auto now = Clock::now();
  for (const auto& [id, group] : groups_) {
    const double timeout = group->request.timeout_s;
    if (timeout > 0 && seconds(now - group->submitted) > timeout) stop(*group, Status::kExpired);
  }
  remove_finished();
}

// --- the end of a group ----------------------------------------------------------------------------------------------

void GroupDriver::finish(Group& group, std::size_t candidate, Status status) {
  group.result.candidates[candidate].status = status;
  group.done[candidate] = true;
  ++counts_.candidates_done;
  if (--group.num_unfinished > 0) return;
  if (group.num_errors == group.done.size()) {
    group.result.candidates.clear();
    group.result.error = "the engine failed: " + group.last_error;
  }
  finish_group(group);
}

void GroupDriver::stop(Group& group, Status status) {
  if (group.finished) return;
  for (std::size_t i = 0; i < group.done.size(); ++i) {
    if (!group.done[i]) finish(group, i, status);
  }
  cancel_flights(group.id);
}

void GroupDriver::fail(Group& group, const std::string& error) {
  if (group.finished) return;
  group.result.candidates.clear();
  group.result.error = error;
  finish_group(group);
  cancel_flights(group.id);
}

void GroupDriver::fail_all(const std::string& error) {
  for (const auto& [id, group] : groups_) {
    if (group->finished) continue;
    group->result.candidates.clear();
    group->result.error = error;
    finish_group(*group);
  }
  for (const auto& [id, flight] : flights_) {
    try {
      engine_->cancel(id);
    } catch (const std::exception&) {  // it is broken, and said so before
    }
    reserved_blocks_ -= flight.num_blocks;
  }
  flights_.clear();
  warming_.clear();
  known_.clear();
}

// A warm-up goes on: others may be waiting for it, and the next group will find it.
void GroupDriver::cancel_flights(Id group) {
  for (const auto& [id, flight] : flights_) {
    if (flight.group == group && flight.kind != Kind::kWarmUp) engine_->cancel(id);
  }
}

void GroupDriver::finish_group(Group& group) {
  const auto now = Clock::now();
  group.finished = true;
  group.result.queue_s = seconds(group.started.value_or(now) - group.submitted);
  group.result.compute_s = seconds(now - group.started.value_or(now));
  counts_.queue_s += group.result.queue_s;
  ++counts_.groups_done;
  if (group.reserved) reserved_blocks_ -= group.plan.num_shared_blocks();
  finished_.push_back({std::move(group.on_done), std::move(group.result)});
}

void GroupDriver::remove_finished() {
  std::erase_if(groups_, [](const auto& item) { return item.second->finished; });
}

// Statistics first, so that whoever is told can read them.
void GroupDriver::deliver() {
  const TokenEngineStats& engine = engine_stats_;
  counts_.steps = engine.steps;
  counts_.compute_s = engine.compute_s;
  counts_.block_size = options_.tokens_per_block;
  counts_.blocks_total = engine.blocks_total;
  counts_.blocks_free = engine.blocks_free;
  counts_.blocks_in_use = engine.blocks_in_use;
  counts_.blocks_cached = std::max<std::int64_t>(0, engine.blocks_total - engine.blocks_free - engine.blocks_in_use);
  {
    const std::lock_guard lock(mutex_);
    stats_ = counts_;
  }
  for (Finished& group : std::exchange(finished_, {})) group.on_done(std::move(group.result));
}

}  // namespace exp3rt
