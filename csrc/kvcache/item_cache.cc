#include "kvcache/item_cache.h"

#include <new>

namespace exp3rt {
namespace {

constexpr std::align_val_t kAlignment{64};

std::shared_ptr<std::byte> allocate(std::size_t bytes) {
  return {static_cast<std::byte*>(::operator new[](bytes, kAlignment)),
          [](std::byte* p) { ::operator delete[](p, kAlignment); }};
}

}  // namespace

ItemCache::Lease::Lease(ItemCache* cache, Entry* entry, std::byte* destination)
    : cache_(cache), entry_(entry), destination_(destination) {
  if (entry_->leases++ > 0 || fresh()) return;
  cache_->lru_.erase({entry_->last_used, entry_});
  cache_->evictable_bytes_ -= entry_->item->num_bytes;
}

ItemCache::Lease::Lease(Lease&& other) noexcept
    : cache_(other.cache_), entry_(std::exchange(other.entry_, nullptr)), destination_(other.destination_) {}

ItemCache::Lease& ItemCache::Lease::operator=(Lease&& other) noexcept {
  std::swap(cache_, other.cache_);
  std::swap(entry_, other.entry_);
  std::swap(destination_, other.destination_);
  return *this;
}

ItemCache::Lease::~Lease() {
  if (entry_ != nullptr) cache_->drop(entry_);
}

const ItemKvPtr& ItemCache::Lease::item() const { return entry_->item; }
bool ItemCache::Lease::computed() const { return entry_->computed; }
void ItemCache::Lease::mark_computed() { entry_->computed = true; }

ItemCache::ItemCache(std::size_t max_bytes, std::function<std::size_t(int)> bytes_of)
    : max_bytes_(max_bytes), bytes_of_(std::move(bytes_of)) {}

std::optional<ItemCache::Lease> ItemCache::acquire(Key key) {
  const auto found = entries_.find(key);
  if (found != entries_.end()) return Lease(this, &found->second, nullptr);
  const int num_tokens = static_cast<int>(key.tokens.size());
  const std::size_t bytes = bytes_of_(num_tokens);
  if (!make_room(bytes)) return std::nullopt;
  std::shared_ptr<std::byte> memory = allocate(bytes);
  std::byte* destination = memory.get();
  const auto [at, inserted] = entries_.emplace(std::move(key), Entry{});
  at->second.key = &at->first;
  at->second.item = std::make_shared<const ItemKv>(ItemKv{std::move(memory), bytes, num_tokens});
  num_bytes_ += bytes;
  return Lease(this, &at->second, destination);
}

bool ItemCache::make_room(std::size_t bytes) {
  if (bytes + num_bytes_ - evictable_bytes_ > max_bytes_) return false;
  while (bytes + num_bytes_ > max_bytes_) erase(lru_.begin()->second);
  return true;
}

void ItemCache::drop(Entry* entry) {
  if (--entry->leases > 0) return;
  entry->last_used = ++clock_;
  lru_.insert({entry->last_used, entry});
  evictable_bytes_ += entry->item->num_bytes;
  if (!entry->computed) erase(entry);
}

void ItemCache::erase(Entry* entry) {
  lru_.erase({entry->last_used, entry});
  evictable_bytes_ -= entry->item->num_bytes;
  num_bytes_ -= entry->item->num_bytes;
  entries_.erase(Key(*entry->key));  // a copy: the entry dies here
}

void ItemCache::clear() {
  while (!lru_.empty()) erase(lru_.begin()->second);
}

}  // namespace exp3rt
