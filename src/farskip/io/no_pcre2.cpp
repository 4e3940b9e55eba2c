#include "farskip/base/error.h"
#include "farskip/io/pattern.h"

namespace farskip {
namespace {

[[noreturn]] void refuse(const std::string& where) {
  throw UnsupportedError("this build of farskip is without PCRE2, which splits text into words",
                         {.where = where,
                          .expected = {},
                          .found = {},
                          .hint = "install libpcre2-dev and configure again"});
}

}  // namespace

struct Pattern::Compiled {};
struct PatternMatches::Workspace {};

bool patterns_are_available() { return false; }

Pattern Pattern::regex(std::string_view, const std::string& where) { refuse(where); }
Pattern Pattern::literal(std::string_view, const std::string& where) { refuse(where); }

PatternMatches::PatternMatches(const Pattern&) {}
PatternMatches::~PatternMatches() = default;
void PatternMatches::search(std::string_view) {}
std::optional<TextRange> PatternMatches::next() { return std::nullopt; }

}  // namespace farskip
