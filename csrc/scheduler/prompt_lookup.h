#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/request.h"

namespace exp3rt {

// Guesses how texts go on: as it did where their last tokens stood before, in themselves or else in each other. Reasonings
// quote their prompt, and those for one user's candidates say the same things in the same words. (Prompt lookup
// decoding: A. Saxena, 2023.) A guess costs nothing to make, and the model tells whether it was right.
class PromptLookup {
 public:
  static constexpr std::size_t kContext = 3;  // tokens that must be the same

  void append(std::size_t text, std::span<const TokenId> tokens);
  // At most `count` tokens that followed when the text's last tokens were last seen.
  TokenIds continuation(std::size_t text, std::size_t count) const;

 private:
  struct Place {
    std::size_t text, position;
  };
  // Of the last tokens, in any text or in one of them alone; another end may have the same, and is guessed wrong.
  static std::uint64_t key(const TokenIds& text);
  static std::uint64_t key_within(std::size_t text, std::uint64_t key);

  std::vector<TokenIds> texts_;
  std::unordered_map<std::uint64_t, Place> followed_by_;  // where the next token stands
};

}  // namespace exp3rt
