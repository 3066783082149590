#include "scheduler/prompt_lookup.h"

#include <algorithm>

namespace exp3rt {
namespace {

std::uint64_t mix(std::uint64_t hash, std::uint64_t number) {
  hash = (hash ^ number) * 0x9e3779b97f4a7c15u;
  return hash ^ hash >> 29;
}

}  // namespace

void PromptLookup::append(std::size_t text, std::span<const TokenId> tokens) {
  if (texts_.size() <= text) texts_.resize(text + 1);
  TokenIds& own = texts_[text];
  for (const TokenId token : tokens) {
    if (own.size() >= kContext) {
      const Place place{text, own.size()};
      followed_by_[key(own)] = followed_by_[key_within(text, key(own))] = place;
    }
    own.push_back(token);
  }
}

TokenIds PromptLookup::continuation(std::size_t text, std::size_t count) const {
  if (text >= texts_.size() || texts_[text].size() < kContext) return {};
  const std::uint64_t end = key(texts_[text]);
  auto found = followed_by_.find(key_within(text, end));
  if (found == followed_by_.end()) found = followed_by_.find(end);
  if (found == followed_by_.end()) return {};
  const TokenIds& source = texts_[found->second.text];
  const auto begin = source.begin() + static_cast<std::ptrdiff_t>(found->second.position);
  return {begin, begin + std::min<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(count), source.end() - begin)};
}

std::uint64_t PromptLookup::key(const TokenIds& text) {
  std::uint64_t hash = 0;
  for (auto token = text.end() - kContext; token != text.end(); ++token) {
    hash = mix(hash, static_cast<std::uint64_t>(*token));
  }
  return hash;
}

std::uint64_t PromptLookup::key_within(std::size_t text, std::uint64_t key) { return mix(key, text + 1); }

}  // namespace exp3rt
