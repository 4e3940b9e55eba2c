#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace farskip {

// UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing above U+10FFFF. Any
// thread.

// The offset in bytes of the first sequence that is not UTF-8; nothing when all of it is.
std::optional<size_t> find_invalid_utf8(std::string_view text);

// Throws FileError that names `where`, the offset of the first invalid byte (counted from
// `offset`) and the byte, unless all of the text is UTF-8.
void require_utf8(std::string_view text, const std::string& where, size_t offset = 0);

struct CodePoint {
  char32_t value = 0;
  size_t bytes = 1;  // of its UTF-8 form
};

// The first code point of a text that is valid and not empty.
CodePoint first_code_point(std::string_view text);
// The last one.
CodePoint last_code_point(std::string_view text);

void append_utf8(std::string& text, char32_t code_point);

// Unicode's property White_Space.
bool is_white_space(char32_t code_point);

}  // namespace farskip
