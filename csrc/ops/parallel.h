#pragma once

#include <immintrin.h>
#include <omp.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <optional>
#include <stdexcept>
#include <thread>

namespace exp3rt {

// While it lives, its thread takes numbers below the smallest normal one, 1e-38, for zero. Processors may need many times as long
// for them, and they come up where nothing counts: in the rows that a product is padded with.
class WithoutDenormals {
 public:
  WithoutDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | kFlushResults | kFlushOperands); }
  ~WithoutDenormals() { _mm_setcsr(before_); }
  WithoutDenormals(const WithoutDenormals&) = delete;
  WithoutDenormals& operator=(const WithoutDenormals&) = delete;

 private:
  static constexpr unsigned kFlushResults = 0x8000, kFlushOperands = 0x0040;
  const unsigned before_;
};

// fn(i) for i in [0, count), on up to num_threads threads, work handed out one by one. The first exception is rethrown
// here. oneDNN sees that it is inside a parallel region and stays on its thread.
template <typename Fn>
void parallel_for(int num_threads, std::int64_t count, Fn&& fn) {
  std::exception_ptr error;
#pragma omp parallel num_threads(num_threads)
  {
    const WithoutDenormals flushed;
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t i = 0; i < count; ++i) {
      try {
        fn(i);
      } catch (...) {
#pragma omp critical(exp3rt_parallel_error)
        if (!error) error = std::current_exception();
      }
    }
  }
  if (error) std::rethrow_exception(error);
}

struct Range {
  std::int64_t begin, end;
  std::int64_t size() const { return end - begin; }
  bool empty() const { return begin == end; }
};

// Where the threads of a team wait for each other.
class Meeting {
 public:
  explicit Meeting(int size) : size_(size) {}

  // Returns when all are here. Throws if one of them never will be.
  void wait() {
    const int round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
      if (broken_.load(std::memory_order_relaxed)) throw std::runtime_error("another thread of the team failed");
      if (spins < kSpins) {
        _mm_pause();
      } else {
        std::this_thread::yield();  // the other may be waiting for this core
      }
    }
  }
  void break_up() { broken_.store(true); }

 private:
  static constexpr int kSpins = 2000;
  const int size_;
  std::atomic<int> arrived_ = 0, round_ = 0;
  std::atomic<bool> broken_ = false;
};

// One of the threads that work on the same thing. By itself: the only one.
class Team {
 public:
  Team() = default;
  Team(int member, int size, Meeting& meeting) : member_(member), size_(size), meeting_(&meeting) {}

  // This member's part of [0, count).
  Range share(std::int64_t count) const { return {count * member_ / size_, count * (member_ + 1) / size_}; }
  // What the others wrote before they called it can be read afterwards.
  void meet() const {
    if (meeting_) meeting_->wait();
  }

 private:
  int member_ = 0;
  int size_ = 1;
  Meeting* meeting_ = nullptr;
};

// fn(team) on each of num_threads threads at once. The first exception is rethrown here.
template <typename Fn>
void in_team(int num_threads, Fn&& fn) {
  std::exception_ptr error;
  std::optional<Meeting> meeting;
#pragma omp parallel num_threads(num_threads)
  {
    const WithoutDenormals flushed;
#pragma omp single
    meeting.emplace(omp_get_num_threads());
    try {
      fn(Team(omp_get_thread_num(), omp_get_num_threads(), *meeting));
    } catch (...) {
#pragma omp critical(exp3rt_parallel_error)
      if (!error) error = std::current_exception();
      meeting->break_up();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace exp3rt
