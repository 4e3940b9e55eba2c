#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "farskip/base/json.h"
#include "farskip/io/normalizer.h"

namespace farskip {

// What becomes of the matches of a pattern and of the text between them.
enum class SplitBehavior {
  isolated,              // each a piece of its own
  removed,               // matches are dropped
  contiguous,            // matches in a row are one piece
  merged_with_previous,  // a match belongs to the text before it
  merged_with_next,      // a match belongs to the text behind it
};

struct SplitRule {
  std::string expression;  // a regular expression, or a text
  bool is_literal = false;
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;  // the text between matches counts as match
};

// A space goes in front of every piece that does not begin with one.
struct PrefixSpaceRule {};

using PreTokenizerRule = std::variant<SplitRule, PrefixSpaceRule>;

// A token that is found in the text before anything else is done to it.
struct AddedToken {
  int32_t id = 0;
  std::string content;      // UTF-8, not empty
  bool special = false;     // may be left out when decoding
  bool normalized = false;  // is found in normalized text, and behind those that are not
  bool strip_left = false;  // takes the white space before it
  bool strip_right = false;
};

// What a tokenizer.json says, checked, but not yet put to work.
struct TokenizerDefinition {
  std::unordered_map<std::string, int32_t> vocabulary;      // as in the file: in the byte alphabet
  std::vector<std::pair<std::string, std::string>> merges;  // first come, first merged
  bool ignore_merges = false;            // a piece that is a token is not taken apart
  std::vector<NormalForm> normal_forms;  // applied in turn
  std::vector<PreTokenizerRule> pre_tokenizer;
  std::vector<AddedToken> added_tokens;  // in the order of the file
  std::vector<int32_t> prefix, suffix;   // special tokens around a text
  std::string post_processor_problem;    // why prefix and suffix are not known; mostly empty
  uint64_t fingerprint = 0;  // of all that decides the ids of a text; not of the file's layout
};

// Reads the contents of a tokenizer.json of the kind byte-level BPE. Throws ConfigError for a field
// that is missing or wrong, or contradicts another; UnsupportedError that names the part for
// another kind of model, normalizer, pre-tokenizer or decoder, or an option of one that would
// change ids (dropout, prefixes of subwords, single_word). `where` names the file.
TokenizerDefinition read_tokenizer_definition(const Json& json, const std::string& where);

}  // namespace farskip
