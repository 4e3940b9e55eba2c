#pragma once

#include <string>
#include <string_view>

namespace farskip {

// A regular expression as tokenizer.json files have them, in PCRE2's syntax. There they are
// written for Oniguruma, which reads some things differently: white space is Unicode's, \h a
// hexadecimal digit, \v a vertical tab, \uHHHH a code point. What has no counterpart, or means
// something else in each and is in no known tokenizer (\w, {n,m}+, nested classes, &&, option
// groups other than (?i)), throws UnsupportedError that names `where` and the construct.
// To be compiled with UTF, UCP, MULTILINE and newline LF. Any thread.
std::string to_pcre2(std::string_view expression, const std::string& where);

}  // namespace farskip
