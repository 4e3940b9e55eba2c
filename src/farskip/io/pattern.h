#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace farskip {

// Bytes [begin, end) of a text.
struct TextRange {
  size_t begin = 0, end = 0;
};

// Whether this build can compile patterns: it was made with PCRE2.
bool patterns_are_available();

class PatternMatches;

// A regular expression of a tokenizer, compiled. Immutable, cheap to copy, any thread.
class Pattern {
 public:
  // An expression in the syntax of tokenizer.json (see to_pcre2). Throws UnsupportedError that
  // names `where` if it can not be read, or if this build is without PCRE2.
  static Pattern regex(std::string_view expression, const std::string& where);
  // A text that stands for itself.
  static Pattern literal(std::string_view text, const std::string& where);

 private:
  friend class PatternMatches;
  struct Compiled;
  explicit Pattern(std::shared_ptr<const Compiled> compiled) : compiled_(std::move(compiled)) {}

  std::shared_ptr<const Compiled> compiled_;
};

// The matches of a pattern in one text after another: leftmost, one behind the other. An empty
// match at the end of the match before it is left out. One thread.
class PatternMatches {
 public:
  explicit PatternMatches(const Pattern& pattern);
  ~PatternMatches();
  PatternMatches(const PatternMatches&) = delete;
  PatternMatches& operator=(const PatternMatches&) = delete;

  // Starts over with a text of valid UTF-8, which must outlive the search.
  void search(std::string_view text);
  // The next match, nothing behind the last. Throws Error when the pattern needs more steps or
  // memory on this text than PCRE2 allows.
  std::optional<TextRange> next();

 private:
  struct Workspace;

  std::shared_ptr<const Pattern::Compiled> compiled_;
  std::unique_ptr<Workspace> workspace_;
  std::string_view text_;
  size_t position_ = 0;
  std::optional<size_t> last_end_;
};

}  // namespace farskip
