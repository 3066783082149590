#pragma once

#include <cstddef>
#include <memory>

namespace exp3rt {

// The keys and values of one item segment, in the form of ops/item_format.h: computed here, or mapped from a
// catalogue. Whoever holds it keeps the memory alive.
struct ItemKv {
  std::shared_ptr<const std::byte> data;
  std::size_t num_bytes = 0;
  int num_tokens = 0;
};

using ItemKvPtr = std::shared_ptr<const ItemKv>;

}  // namespace exp3rt
