#pragma once

#include <omp.h>

#include <cstdint>
#include <exception>

namespace exp3rt {

// fn(i) for i in [0, count), on up to num_threads threads, work handed out one by one. The first exception is rethrown
// here. oneDNN sees that it is inside a parallel region and stays on its thread.
template <typename Fn>
void parallel_for(int num_threads, std::int64_t count, Fn&& fn) {
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic, 1) num_threads(num_threads)
  for (std::int64_t i = 0; i < count; ++i) {
    try {
      fn(i);
    } catch (...) {
#pragma omp critical(exp3rt_parallel_error)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace exp3rt
