#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace exp3rt {

// Executors of one process take turns, step by step and in order of arrival, so that two of them never run more
// threads than one of them was given.
class ComputeTurn {
 public:
  ComputeTurn() {
    std::unique_lock lock(queue().mutex);
    const std::uint64_t ticket = queue().next_ticket++;
    queue().served.wait(lock, [ticket] { return queue().now_serving == ticket; });
  }
  ~ComputeTurn() {
    {
      const std::lock_guard lock(queue().mutex);
      ++queue().now_serving;
    }
    queue().served.notify_all();
  }
  ComputeTurn(const ComputeTurn&) = delete;
  ComputeTurn& operator=(const ComputeTurn&) = delete;

 private:
  struct Queue {
    std::mutex mutex;
    std::condition_variable served;
    std::uint64_t next_ticket = 0;
    std::uint64_t now_serving = 0;
  };
  static Queue& queue() {
    static Queue the_queue;
    return the_queue;
  }
};

}  // namespace exp3rt
