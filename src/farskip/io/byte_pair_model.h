#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "farskip/io/tokenizer_definition.h"

namespace farskip {

// Byte pair encoding (Sennrich et al. 2016) on bytes: a word starts as one token a byte, and of all
// neighbours that may be merged those of the earliest merge are, leftmost first, until none is
// left. Immutable, any thread.
class BytePairModel {
 public:
  // Takes vocabulary, merges and ignore_merges, which must have been checked.
  explicit BytePairModel(const TokenizerDefinition& definition);

  // What encode works in, kept from word to word. One thread.
  struct Workspace {
    struct Symbol {
      int32_t id = -1;  // -1: merged into the one before it
      int32_t previous = -1, next = -1;
    };
    struct Candidate {
      int32_t rank = 0, position = 0, result = 0;
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> queue;  // a heap, the earliest merge on top
  };

  // Appends the ids of a word of at most 2^31 - 1 bytes. Throws UnsupportedError for a byte that
  // the vocabulary lacks.
  void encode(std::string_view word, std::vector<int32_t>& ids, Workspace& workspace) const;

 private:
  struct Merge {
    int32_t rank = 0, result = 0;
  };
  struct PairHash {
    size_t operator()(uint64_t pair) const;
  };
  struct TextHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };

  int32_t id_of_byte(char byte) const;
  std::optional<Workspace::Candidate> candidate_at(const std::vector<Workspace::Symbol>& symbols,
                                                   int32_t position) const;
  void merge_all(Workspace& workspace) const;

  std::array<int32_t, 256> byte_ids_;                     // -1 where the vocabulary lacks the byte
  std::unordered_map<uint64_t, Merge, PairHash> merges_;  // by ids: left << 32 | right
  std::unordered_map<std::string, int32_t, TextHash, std::equal_to<>> whole_;  // if ignore_merges
};

}  // namespace farskip
