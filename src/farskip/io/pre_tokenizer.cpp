#include "farskip/io/pre_tokenizer.h"

#include <utility>

namespace farskip {
namespace {

// One match, or the text between two.
struct Section {
  TextRange range;
  bool is_match = false;
};

// Whether a section is joined to the one before it, and it in turn to the one before that.
bool joins(SplitBehavior behavior, const Section& before, const Section& section) {
  switch (behavior) {
    case SplitBehavior::contiguous:
      return section.is_match == before.is_match;
    case SplitBehavior::merged_with_previous:
      return section.is_match && !before.is_match;
    case SplitBehavior::merged_with_next:
      return before.is_match && !section.is_match;
    default:
      return false;
  }
}

// Collects sections into pieces. No section of a text is lost, but for `removed` matches.
class SectionJoiner {
 public:
  SectionJoiner(std::string_view text, const SplitRule& rule, std::vector<std::string_view>& pieces)
      : text_(text), rule_(rule), pieces_(pieces) {}
  ~SectionJoiner() { finish(); }
  SectionJoiner(const SectionJoiner&) = delete;
  SectionJoiner& operator=(const SectionJoiner&) = delete;

  void add(TextRange range, bool is_match) {
    const Section section{range, is_match != rule_.invert};
    if (has_last_ && joins(rule_.behavior, last_, section)) {
      current_.end = range.end;
    } else {
      finish();
      current_ = range;
      is_removed_ = rule_.behavior == SplitBehavior::removed && section.is_match;
    }
    last_ = section;
    has_last_ = true;
  }

 private:
  void finish() {
    if (is_removed_ || current_.begin == current_.end) return;
    pieces_.push_back(text_.substr(current_.begin, current_.end - current_.begin));
  }

  const std::string_view text_;
  const SplitRule& rule_;
  std::vector<std::string_view>& pieces_;
  TextRange current_;
  Section last_;
  bool has_last_ = false, is_removed_ = false;
};

void split_piece(std::string_view text, const SplitRule& rule, PatternMatches& matches,
                 std::vector<std::string_view>& pieces) {
  SectionJoiner joiner(text, rule, pieces);
  size_t end = 0;
  matches.search(text);
  while (const auto match = matches.next()) {
    if (match->begin > end) joiner.add({end, match->begin}, false);
    joiner.add(*match, true);
    end = match->end;
  }
  if (end < text.size()) joiner.add({end, text.size()}, false);
}

Pattern compile(const SplitRule& rule, const std::string& where) {
  return rule.is_literal ? Pattern::literal(rule.expression, where)
                         : Pattern::regex(rule.expression, where);
}

}  // namespace

PreTokenizer::PreTokenizer(std::vector<PreTokenizerRule> rules, const std::string& where)
    : rules_(std::move(rules)) {
  for (const PreTokenizerRule& rule : rules_) {
    if (const auto* split = std::get_if<SplitRule>(&rule)) {
      patterns_.push_back(compile(*split, where));
    }
  }
}

PreTokenizer::Workspace::Workspace(const PreTokenizer& pre_tokenizer) {
  for (const Pattern& pattern : pre_tokenizer.patterns_) matches_.emplace_back(pattern);
}

std::span<const std::string_view> PreTokenizer::split(std::string_view text,
                                                      Workspace& workspace) const {
  auto& pieces = workspace.pieces_;
  auto& next_pieces = workspace.next_pieces_;
  pieces.clear();
  workspace.prefixed_.clear();
  if (!text.empty()) pieces.push_back(text);
  auto matches = workspace.matches_.begin();
  for (const PreTokenizerRule& rule : rules_) {
    if (const auto* split = std::get_if<SplitRule>(&rule)) {
      next_pieces.clear();
      for (const std::string_view piece : pieces) {
        split_piece(piece, *split, *matches, next_pieces);
      }
      std::swap(pieces, next_pieces);
      ++matches;
      continue;
    }
    for (std::string_view& piece : pieces) {
      if (!piece.starts_with(' ')) piece = workspace.prefixed_.emplace_back(" ").append(piece);
    }
  }
  return pieces;
}

}  // namespace farskip
