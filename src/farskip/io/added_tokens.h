#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "farskip/io/tokenizer_definition.h"

namespace farskip {

// Finds added tokens in text: the leftmost first, of those that begin at one place the longest.
// Immutable, any thread.
class AddedTokenMatcher {
 public:
  // A text for every token, `contents[i]` for `tokens[i]`; empty ones are never found.
  AddedTokenMatcher(std::span<const AddedToken> tokens, std::span<const std::string> contents);

  struct Part {
    std::string_view text;
    int32_t id = -1;  // of an added token; -1: plain text
  };
  // Appends the parts of a text in order, without the white space that tokens strip; no empty ones.
  void split(std::string_view text, std::vector<Part>& parts) const;

 private:
  struct Node {
    std::vector<std::pair<char, int32_t>> children;  // byte and index of the node
    int32_t token = -1;                              // of tokens_, which ends here
  };
  struct Found {
    size_t begin = 0, end = 0;
    int32_t token = -1;
  };

  void insert(std::string_view content, int32_t token);
  // The first token at or behind `from`, if any.
  Found find(std::string_view text, size_t from) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;          // a trie over bytes; the first is its root
  std::array<int32_t, 256> starts_;  // the root's children by byte, -1 for none
};

}  // namespace farskip
