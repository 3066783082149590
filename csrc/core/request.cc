#include "core/request.h"

#include <stdexcept>
#include <string>

namespace exp3rt {
namespace {

[[noreturn]] void reject(const std::string& what) { throw std::invalid_argument("rerank group: " + what); }

}  // namespace

void check_fields(const RerankGroup& group) {
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
  std::size_t prefix = 0;
  for (const TokenIds& segment : group.prefix) {
    check(segment, "prefix");
    prefix += segment.size();
  }
  check(group.answer_tokens, "answer_tokens");
  check(group.label_tokens, "label_tokens");
  for (std::size_t i = 0; i < group.suffixes.size(); ++i) {
    check(group.suffixes[i], "suffixes");
    const std::size_t total = prefix + group.suffixes[i].size() + group.answer_tokens.size() +
                              static_cast<std::size_t>(group.max_reasoning_tokens);
    if (total <= static_cast<std::size_t>(max_context)) continue;
    reject("suffix " + std::to_string(i) + " makes " + std::to_string(total) +
           " tokens with its prefix, reasoning and answer; the limit is " + std::to_string(max_context));
  }
}

}  // namespace exp3rt
