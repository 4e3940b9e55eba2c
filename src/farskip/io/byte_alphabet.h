#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace farskip {

// How byte-level tokenizers write bytes in their vocabulary, since GPT-2: each byte is one visible
// character. Bytes that are a visible character of Latin-1 stand for themselves; the others, in
// ascending order, are U+0100, U+0101, ... (a space is U+0120). Any thread.

// The bytes that a vocabulary entry (UTF-8) stands for; nothing when a character of it is not of
// the alphabet.
std::optional<std::string> bytes_from_alphabet(std::string_view token);

// The reverse: bytes, any, to UTF-8.
std::string bytes_to_alphabet(std::string_view bytes);

}  // namespace farskip
