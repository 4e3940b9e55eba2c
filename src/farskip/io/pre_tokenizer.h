#pragma once

#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "farskip/io/pattern.h"
#include "farskip/io/tokenizer_definition.h"

namespace farskip {

// Takes text apart into the pieces, mostly words, within which tokens are formed: rules in turn,
// each on every piece that the one before it left. Immutable, any thread.
class PreTokenizer {
 public:
  // Throws UnsupportedError that names `where` and a pattern that can not be compiled.
  PreTokenizer(std::vector<PreTokenizerRule> rules, const std::string& where);

  // What split works in, kept from text to text. One thread.
  class Workspace {
   public:
    explicit Workspace(const PreTokenizer& pre_tokenizer);

   private:
    friend class PreTokenizer;
    std::deque<PatternMatches> matches_;  // of the rules that split
    std::vector<std::string_view> pieces_, next_pieces_;
    std::deque<std::string> prefixed_;  // what pieces with a space in front view
  };

  // The pieces of a text in valid UTF-8, in order, none of them empty. They view the text or the
  // workspace, until its next use. Throws what PatternMatches::next throws.
  std::span<const std::string_view> split(std::string_view text, Workspace& workspace) const;

 private:
  std::vector<PreTokenizerRule> rules_;
  std::vector<Pattern> patterns_;  // of the rules that split, in order
};

}  // namespace farskip
