#pragma once

#include <chrono>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "executor/group_driver.h"

namespace exp3rt {

using Clock = std::chrono::steady_clock;

// A group on its way through the driver.
struct GroupDriver::Group {
  Group(RerankGroup r, const GroupDriverOptions& options)
      : request(std::move(r)), plan(request, options.tokens_per_block) {}

  Id id = 0;
  RerankGroup request;
  GroupPlan plan;
  OnDone on_done;
  GroupResult result;
  Clock::time_point submitted = Clock::now();
  std::optional<Clock::time_point> started;  // its first request
  bool warm = false;                         // the prefix is in the cache, or one candidate will put it there
  bool reserved = false;                     // the prefix is counted in reserved_blocks_
  std::size_t next_candidate = 0;
  std::deque<std::size_t> to_answer;  // candidates with a reasoning and no request
  std::vector<bool> done;
  std::size_t num_unfinished = 0;
  std::size_t num_errors = 0;  // candidates that the engine failed
  std::string last_error;
  bool finished = false;
};

}  // namespace exp3rt
