#pragma once

#include <string>
#include <string_view>

namespace farskip {

// Unicode's normal forms.
enum class NormalForm { nfc, nfd, nfkc, nfkd };

// Whether this build can normalize: it was made with utf8proc.
bool normalization_is_available();

// The text, which must be UTF-8, in a normal form. Throws UnsupportedError if this build is without
// utf8proc. Any thread. Text of characters below U+0300 comes back at once in nfc, ASCII in all.
std::string normalize(std::string_view text, NormalForm form);

}  // namespace farskip
