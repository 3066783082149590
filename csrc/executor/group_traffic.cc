// What the driver sends to the engine, and what it makes of the responses.
#include <algorithm>
#include <cmath>
#include <exception>
#include <utility>

#include "executor/group_driver.h"
#include "executor/group_state.h"

namespace exp3rt {

// --- to the engine ---------------------------------------------------------------------------------------------------

void GroupDriver::fill() {
  engine_stats_ = engine_->stats();
  sent_ = 0;
  for (const auto& [id, group] : groups_) {
    if (!warm_up(*group)) break;
  }
  for (const auto& [id, group] : groups_) {
    if (!send_candidates(*group)) break;
  }
}

// A single request is always let in, so that something goes on whatever the statistics say.
bool GroupDriver::has_room(int num_blocks) const {
  if (flights_.empty()) return true;
  if (static_cast<int>(flights_.size()) >= options_.max_requests) return false;
  if (engine_stats_.queued_requests + sent_ >= options_.max_queued) return false;
  return engine_stats_.blocks_total == 0 || reserved_blocks_ + num_blocks <= engine_stats_.blocks_total;
}

// False when there is no room for more.
bool GroupDriver::warm_up(Group& group) {
  if (group.warm) return true;
  const std::uint64_t key = group.plan.prefix_key();
  const auto known = std::find(known_.begin(), known_.end(), key);
  if (known != known_.end()) known_.splice(known_.begin(), known_, known);
  // One candidate computes the prefix as well as a request before it would.
  const bool useless = group.plan.num_shared_blocks() == 0 || group.request.suffixes.size() == 1;
  group.warm = known != known_.end() || useless;
  if (group.warm || warming_.count(key) > 0) return true;
  if (static_cast<int>(warming_.size()) >= options_.max_warm_ups) return false;
  const int needed = group.plan.num_shared_blocks() + 1;
  if (!has_room(needed)) return false;
  send(group, Kind::kWarmUp, 0, needed, group.plan.warm_up(group.request));
  if (!group.finished) warming_.insert(key);
  return true;
}

// False when there is no room for more.
bool GroupDriver::send_candidates(Group& group) {
  const bool reasons = group.request.max_reasoning_tokens > 0;
  while (group.warm && !group.finished) {
    const bool answers = !group.to_answer.empty();
    if (!answers && group.next_candidate == group.done.size()) break;
    const std::size_t candidate = answers ? group.to_answer.front() : group.next_candidate;
    const int own = group.plan.num_own_blocks(group.request, candidate);
    const int shared = group.reserved ? 0 : group.plan.num_shared_blocks();
    if (!has_room(own + shared)) return false;
    group.reserved = true;
    reserved_blocks_ += shared;
    if (answers) {
      group.to_answer.pop_front();
      const TokenIds& reasoning = group.result.candidates[candidate].reasoning_tokens;
      send(group, Kind::kLabel, candidate, own, group.plan.answer_request(group.request, candidate, reasoning));
    } else {
      ++group.next_candidate;
      send(group, reasons ? Kind::kReasoning : Kind::kLabel, candidate, own,
           group.plan.first_request(group.request, candidate));
    }
  }
  return true;
}

// A refused request is the fault of its group, and the others go on.
void GroupDriver::send(Group& group, Kind kind, std::size_t candidate, int num_blocks, TokenRequest request) {
  if (!group.started) group.started = Clock::now();
  const int num_tokens = static_cast<int>(request.tokens.size());
  try {
    const std::uint64_t id = engine_->enqueue(std::move(request));
    flights_[id] = {group.id, kind, candidate, num_blocks, num_tokens, group.plan.prefix_key()};
    reserved_blocks_ += num_blocks;
    ++sent_;
  } catch (const std::exception& error) {
    fail(group, std::string("the engine refused a request: ") + error.what());
  }
}

// --- from the engine -------------------------------------------------------------------------------------------------

void GroupDriver::take(TokenResponse response) {
  const auto found = flights_.find(response.id);
  if (found == flights_.end()) return;
  const Flight flight = found->second;
  flights_.erase(found);
  reserved_blocks_ -= flight.num_blocks;
  if (response.error.empty()) {
    const int reused = std::min(flight.num_tokens, response.reused_blocks * options_.tokens_per_block);
    counts_.prompt_tokens_computed += flight.num_tokens - reused;
    counts_.prompt_tokens_reused += flight.kind == Kind::kWarmUp ? 0 : reused;
  }
  if (flight.kind == Kind::kWarmUp) return take_warm_up(flight, response.error);
  const auto owner = groups_.find(flight.group);
  if (owner == groups_.end() || owner->second->finished) return;  // cancelled meanwhile
  Group& group = *owner->second;
  if (!response.error.empty()) {
    group.last_error = response.error;
    ++group.num_errors;
    return finish(group, flight.candidate, Status::kFailed);
  }
  remember(flight.prefix_key);
  if (flight.kind == Kind::kReasoning) {
    take_reasoning(group, flight.candidate, std::move(response.new_tokens));
  } else {
    take_label(group, flight.candidate, std::move(response.label_logits));
  }
}

// Whoever shares the prefix was waiting for it.
void GroupDriver::take_warm_up(const Flight& flight, const std::string& error) {
  warming_.erase(flight.prefix_key);
  if (error.empty()) remember(flight.prefix_key);
  for (const auto& [id, group] : groups_) {
    if (group->warm || group->finished || group->plan.prefix_key() != flight.prefix_key) continue;
    if (error.empty()) {
      group->warm = true;
    } else {
      fail(*group, "the engine failed: " + error);
    }
  }
}

void GroupDriver::take_reasoning(Group& group, std::size_t candidate, TokenIds tokens) {
  const TokenIds& ends = group.request.end_tokens;
  tokens.erase(std::find_first_of(tokens.begin(), tokens.end(), ends.begin(), ends.end()), tokens.end());
  const TokenIds& answer = group.request.answer_tokens;
  if (!answer.empty())
    tokens.erase(std::search(tokens.begin(), tokens.end(), answer.begin(), answer.end()), tokens.end());
  counts_.generated_tokens += static_cast<std::int64_t>(tokens.size());
  group.result.candidates[candidate].reasoning_tokens = std::move(tokens);
  if (group.request.generates_only()) return finish(group, candidate, Status::kOk);
  group.to_answer.push_back(candidate);
}

void GroupDriver::take_label(Group& group, std::size_t candidate, std::vector<float> logits) {
  const bool whole = logits.size() == group.request.label_tokens.size() &&
                     std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); });
  if (whole) group.result.candidates[candidate].label_logits = std::move(logits);
  finish(group, candidate, whole ? Status::kOk : Status::kFailed);
}

void GroupDriver::remember(std::uint64_t prefix_key) {
  known_.remove(prefix_key);
  known_.push_front(prefix_key);
  if (known_.size() > static_cast<std::size_t>(options_.known_prefixes)) known_.pop_back();
}

}  // namespace exp3rt
