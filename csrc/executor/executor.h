#pragma once

#include <cstdint>
#include <functional>

#include "core/request.h"
#include "core/result.h"

namespace exp3rt {

// The seam: whatever runs groups. Everything above (prompts, ordering, ratings, statistics) is the same for all.
//
// Contract: thread-safe. `submit` checks the group (std::invalid_argument) and returns at once; `on_done` is called
// exactly once for every submitted group, from the executor's thread, whatever happens to it: results, a cancellation,
// an error, or the executor's end. It must not throw and should return quickly.
class Executor {
 public:
  using Id = std::uint64_t;
  using OnDone = std::function<void(GroupResult)>;

  virtual ~Executor() = default;
  virtual Id submit(RerankGroup group, OnDone on_done) = 0;
  // Candidates without a result come back as cancelled. An unknown or finished id is not an error.
  virtual void cancel(Id id) = 0;
  virtual ExecutorStats stats() const = 0;
  // Computes nothing more; groups without a result get an error. Later submissions throw std::runtime_error.
  virtual void close() = 0;
};

}  // namespace exp3rt
