#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "core/item_kv.h"
#include "core/request.h"

namespace exp3rt {

// Item segments whose keys and values are kept in memory, within a budget.
//
// Contract:
//  - `acquire` returns a lease on an item: one that is here or being computed, or a fresh one, whose holder must compute
//    it into `destination` and call `mark_computed`. It returns nothing (and changes nothing) when there is no room.
//  - A leased item is never evicted. Others go least recently used first. One that nobody computed in the end is dropped
//    with its last lease.
//  - Items of different instructions, positions or salts are different items.
//  - The bytes of all items here are at most the budget. Memory that a result still holds is no longer counted.
// Not thread-safe. Outlives its leases.
class ItemCache {
 public:
  struct Key {
    std::string salt;
    int position;
    TokenIds instructions;
    TokenIds tokens;
    auto operator<=>(const Key&) const = default;
  };

 private:
  struct Entry;

 public:
  // Keeps an item alive. Move-only.
  class Lease {
   public:
    Lease(Lease&& other) noexcept;
    Lease& operator=(Lease&& other) noexcept;
    ~Lease();

    const ItemKvPtr& item() const;
    bool fresh() const { return destination_ != nullptr; }
    std::byte* destination() const { return destination_; }  // of a fresh one's keys and values
    bool computed() const;
    void mark_computed();

   private:
    friend class ItemCache;
    Lease(ItemCache* cache, Entry* entry, std::byte* destination);
    ItemCache* cache_;
    Entry* entry_;  // null once moved from
    std::byte* destination_;
  };

  // bytes_of: what an item of so many tokens takes.
  ItemCache(std::size_t max_bytes, std::function<std::size_t(int)> bytes_of);
  ItemCache(const ItemCache&) = delete;
  ItemCache& operator=(const ItemCache&) = delete;

  std::optional<Lease> acquire(Key key);
  void clear();  // drops everything that no lease holds

  std::size_t bytes_of(int num_tokens) const { return bytes_of_(num_tokens); }
  std::size_t max_bytes() const { return max_bytes_; }
  std::size_t num_bytes() const { return num_bytes_; }
  std::size_t num_items() const { return entries_.size(); }

 private:
  struct Entry {
    ItemKvPtr item;
    const Key* key = nullptr;  // in entries_
    int leases = 0;
    bool computed = false;
    std::uint64_t last_used = 0;
  };

  bool make_room(std::size_t bytes);
  void drop(Entry* entry);
  void erase(Entry* entry);

  std::size_t max_bytes_;
  std::function<std::size_t(int)> bytes_of_;
  std::map<Key, Entry> entries_;
  std::set<std::pair<std::uint64_t, Entry*>> lru_;  // without leases, oldest first
  std::uint64_t clock_ = 0;
  std::size_t num_bytes_ = 0;
  std::size_t evictable_bytes_ = 0;
};

}  // namespace exp3rt
