#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

namespace exp3rt {

// Uninitialized memory on a cache-line boundary, that grows and never shrinks. Contents are lost when it grows.
class AlignedBuffer {
 public:
  static constexpr std::size_t kAlignment = 64;

  // The first `count` elements of T.
  template <typename T>
  T* get(std::size_t count) {
    reserve(count * sizeof(T));
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{kAlignment}); }
  };

  void reserve(std::size_t size) {
    if (size <= size_) return;
    data_.reset();
    data_.reset(static_cast<std::byte*>(::operator new[](size, std::align_val_t{kAlignment})));
    size_ = size;
  }

  std::unique_ptr<std::byte[], Free> data_;
  std::size_t size_ = 0;
};

}  // namespace exp3rt
