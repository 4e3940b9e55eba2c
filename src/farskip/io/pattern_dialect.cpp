#include "farskip/io/pattern_dialect.h"

#include <algorithm>

#include "farskip/base/error.h"

namespace farskip {
namespace {

// Contents of character classes: Unicode's White_Space, and everything else.
constexpr std::string_view white_space =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view no_white_space =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff})"
    R"(\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr std::string_view hexadecimal = "0-9A-Fa-f";
constexpr std::string_view no_hexadecimal =
    R"(\x{0}-\x{2f}\x{3a}-\x{40}\x{47}-\x{60}\x{67}-\x{10ffff})";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_hexadecimal(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

class Translator {
 public:
  Translator(std::string_view expression, const std::string& where)
      : rest_(expression), where_(where), expression_(expression) {}

  std::string translate() {
    while (!rest_.empty()) {
      switch (rest_.front()) {
        case '\\':
          escape();
          break;
        case '[':
          character_class();
          break;
        case '(':
          group();
          break;
        case '{':
          interval();
          break;
        default:
          keep(1);
      }
    }
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse(std::string_view construct) const {
    throw UnsupportedError("regular expression has something that this version does not read",
                           {.where = where_ + ": " + std::string(expression_),
                            .expected = {},
                            .found = std::string(construct),
                            .hint = {}});
  }

  void keep(size_t characters) {
    result_ += rest_.substr(0, characters);
    rest_.remove_prefix(characters);
  }

  void replace(size_t characters, std::string_view contents) {
    rest_.remove_prefix(characters);
    result_ += in_class_ ? std::string(contents) : "[" + std::string(contents) + "]";
  }

  void escape() {
    if (rest_.size() < 2) refuse("\\ at its end");
    const char letter = rest_[1];
    if (letter == 's') return replace(2, white_space);
    if (letter == 'S') return replace(2, no_white_space);
    if (letter == 'h') return replace(2, hexadecimal);
    if (letter == 'H') return replace(2, no_hexadecimal);
    if (letter == 'v') return replace(2, R"(\x{b})");
    if (letter == 'u') return code_point();
    if (letter == 'x') return hexadecimal_escape();
    if (letter == 'p' || letter == 'P') return property();
    constexpr std::string_view same_in_both = "dDtnrfae";
    constexpr std::string_view anchors = "AzZ";
    if ((is_letter(letter) || is_digit(letter)) &&
        same_in_both.find(letter) == std::string_view::npos &&
        (in_class_ || anchors.find(letter) == std::string_view::npos)) {
      refuse(rest_.substr(0, 2));
    }
    keep(2);
  }

  // \uHHHH
  void code_point() {
    const std::string_view digits = rest_.substr(2, 4);
    if (digits.size() < 4 || !std::all_of(digits.begin(), digits.end(), is_hexadecimal)) {
      refuse(rest_.substr(0, 6));
    }
    result_ += "\\x{" + std::string(digits) + "}";
    rest_.remove_prefix(6);
  }

  // \x{H...} is a code point in both; \xHH is a byte in Oniguruma.
  void hexadecimal_escape() {
    if (rest_.size() < 3 || (rest_[2] != '{' && !(rest_[2] >= '0' && rest_[2] <= '7'))) {
      refuse(rest_.substr(0, 4));
    }
    keep(3);
  }

  // \p{Name}, \P{Name}, \p{^Name}; without braces the two differ.
  void property() {
    const size_t end = rest_.find('}');
    if (rest_.size() < 3 || rest_[2] != '{' || end == std::string_view::npos) {
      refuse(rest_.substr(0, 3));
    }
    keep(rest_.substr(3).starts_with('^') ? 4 : 3);
    // The short names are general categories, the long ones scripts: without sc: PCRE2 also counts
    // characters that a script shares with others.
    const size_t name = rest_.find('}');
    if (name > 2) result_ += "sc:";
    keep(name + 1);
  }

  void character_class() {
    in_class_ = true;
    keep(1);
    if (rest_.starts_with('^')) keep(1);
    if (rest_.starts_with(']')) keep(1);  // as first of a class it is itself
    while (!rest_.starts_with(']')) {
      if (rest_.empty()) refuse("[ without ]");
      if (rest_.front() == '[') refuse("[ in a character class");
      if (rest_.starts_with("&&")) refuse("&&");
      if (rest_.front() == '\\') {
        escape();
      } else {
        keep(1);
      }
    }
    keep(1);
    in_class_ = false;
  }

  void group() {
    if (rest_.starts_with("(*")) refuse("(*");
    if (!rest_.starts_with("(?")) return keep(1);
    // Elsewhere than in front, Oniguruma lets (?i) reach over the alternatives behind it.
    if (rest_.starts_with("(?i)") && result_.empty()) return keep(4);
    for (const std::string_view known : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"}) {
      if (rest_.starts_with(known)) return keep(known.size());
    }
    refuse(rest_.substr(0, 4));
  }

  // {n}, {n,}, {n,m}; any other { is itself.
  void interval() {
    size_t end = 1;
    while (end < rest_.size() && is_digit(rest_[end])) ++end;
    const size_t digits = end - 1;
    const bool has_comma = end < rest_.size() && rest_[end] == ',';
    if (has_comma) ++end;
    while (has_comma && end < rest_.size() && is_digit(rest_[end])) ++end;
    if (end >= rest_.size() || rest_[end] != '}' || end == 1) return keep(1);
    if (digits == 0) refuse(rest_.substr(0, end + 1));
    keep(end + 1);
    if (rest_.starts_with('+')) refuse("{n,m}+");
    if (rest_.starts_with('?') && !has_comma) refuse("{n}?");
  }

  std::string_view rest_;
  const std::string& where_;
  const std::string_view expression_;
  std::string result_;
  bool in_class_ = false;
};

}  // namespace

std::string to_pcre2(std::string_view expression, const std::string& where) {
  return Translator(expression, where).translate();
}

}  // namespace farskip
