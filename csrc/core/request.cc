#include "core/request.h"

#include <numeric>
#include <stdexcept>
#include <string>

namespace exp3rt {
namespace {

[[noreturn]] void reject(const std::string& what) { throw std::invalid_argument("rerank group: " + what); }

std::size_t num_tokens(const std::vector<TokenIds>& segments) {
  return std::accumulate(segments.begin(), segments.end(), std::size_t{0},
                         [](std::size_t sum, const TokenIds& segment) { return sum + segment.size(); });
}

// What must end before a position.
void check_ends(const std::string& what, std::size_t end, int position, const char* following) {
  if (end <= static_cast<std::size_t>(position)) return;
  reject(what + " ends at position " + std::to_string(end) + ", behind " + following + " at " +
         std::to_string(position));
}

void check_items(const RerankGroup& group) {
  if (group.items.empty()) {
    if (!group.stored.empty()) reject("stored is not empty, but items is");
    return;
  }
  if (group.item_position < 0 || group.suffix_position < 0) reject("item_position or suffix_position is negative");
  if (!group.stored.empty() && group.stored.size() != group.items.size()) reject("stored and items differ in number");
  if (group.prefix.empty()) reject("prefix is empty, and items need its first segment");
  check_ends("prefix", num_tokens(group.prefix), group.item_position, "item_position");
  for (std::size_t i = 0; i < group.items.size(); ++i) {
    if (group.items[i].empty()) reject("item " + std::to_string(i) + " is empty");
    const std::size_t end = static_cast<std::size_t>(group.item_position) + group.items[i].size();
    check_ends("item " + std::to_string(i), end, group.suffix_position, "suffix_position");
  }
  if (!group.encodes_only() && group.items.size() != group.suffixes.size())
    reject("items and suffixes differ in number");
}

}  // namespace

void check_fields(const RerankGroup& group) {
  check_items(group);
  if (group.encodes_only()) {
    if (!group.label_tokens.empty()) reject("label_tokens is not empty, but suffixes is");
    return;
  }
  if (group.suffixes.empty()) reject("suffixes is empty");
  if (group.max_reasoning_tokens < 0) reject("max_reasoning_tokens is negative");
  if (group.generates_only()) {
    if (!group.answer_tokens.empty()) reject("label_tokens is empty, but answer_tokens is not");
    if (group.max_reasoning_tokens == 0) reject("label_tokens is empty, and max_reasoning_tokens is 0");
  } else if (group.max_reasoning_tokens > 0 && group.answer_tokens.empty()) {
    reject("answer_tokens is empty, and reasoning needs an answer");
  }
  for (std::size_t i = 0; i < group.suffixes.size(); ++i) {
    if (group.suffixes[i].empty()) reject("suffix " + std::to_string(i) + " is empty");
  }
}

void check_tokens(const RerankGroup& group, int vocab_size, int max_context) {
  const auto check = [vocab_size](const TokenIds& tokens, const char* where) {
    for (const TokenId token : tokens) {
      if (token >= 0 && token < vocab_size) continue;
      reject("token " + std::to_string(token) + " in " + where + " is outside the vocabulary of " +
             std::to_string(vocab_size));
    }
  };
  for (const TokenIds& segment : group.prefix) check(segment, "prefix");
  for (const TokenIds& item : group.items) check(item, "items");
  check(group.answer_tokens, "answer_tokens");
  check(group.label_tokens, "label_tokens");
  for (std::size_t i = 0; i < group.suffixes.size(); ++i) {
    check(group.suffixes[i], "suffixes");
    const std::size_t before =
        group.items.empty() ? num_tokens(group.prefix) : static_cast<std::size_t>(group.suffix_position);
    const std::size_t total = before + group.suffixes[i].size() + group.answer_tokens.size() +
                              static_cast<std::size_t>(group.max_reasoning_tokens);
    if (total <= static_cast<std::size_t>(max_context)) continue;
    reject("suffix " + std::to_string(i) + " makes " + std::to_string(total) +
           " tokens with its prefix, reasoning and answer; the limit is " + std::to_string(max_context));
  }
}

}  // namespace exp3rt
