#include "farskip/io/utf8.h"

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "farskip/base/error.h"

namespace farskip {
namespace {

unsigned char byte_at(std::string_view text, size_t index) {
  return static_cast<unsigned char>(text[index]);
}

bool is_continuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

// What may follow a first byte: the number of bytes in all (0: nothing starts so) and the range of
// the second byte, which is where overlong forms, surrogates and too large values show.
struct Lead {
  size_t bytes;
  unsigned char low, high;
};

Lead lead_of(unsigned char byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

bool is_valid_sequence(std::string_view text, size_t begin, const Lead& lead) {
  if (lead.bytes == 0 || text.size() - begin < lead.bytes) return false;
  if (lead.bytes == 1) return true;
  const unsigned char second = byte_at(text, begin + 1);
  if (second < lead.low || second > lead.high) return false;
  for (size_t i = 2; i < lead.bytes; ++i) {
    if (!is_continuation(byte_at(text, begin + i))) return false;
  }
  return true;
}

}  // namespace

std::optional<size_t> find_invalid_utf8(std::string_view text) {
  constexpr uint64_t high_bits = 0x8080808080808080;
  size_t i = 0;
  while (i < text.size()) {
    // Most text is ASCII for long stretches.
    for (uint64_t eight; text.size() - i >= sizeof eight; i += sizeof eight) {
      std::memcpy(&eight, text.data() + i, sizeof eight);
      if ((eight & high_bits) != 0) break;
    }
    if (i == text.size()) break;
    const Lead lead = lead_of(byte_at(text, i));
    if (!is_valid_sequence(text, i, lead)) return i;
    i += lead.bytes;
  }
  return std::nullopt;
}

void require_utf8(std::string_view text, const std::string& where, size_t offset) {
  const auto invalid = find_invalid_utf8(text);
  if (!invalid) return;
  std::array<char, 8> byte{};
  std::snprintf(byte.data(), byte.size(), "0x%02X", byte_at(text, *invalid));
  throw FileError("text is not UTF-8",
                  {.where = where + ": byte " + std::to_string(offset + *invalid),
                   .expected = "UTF-8",
                   .found = byte.data(),
                   .hint = "convert the text first, for example with iconv"});
}

CodePoint first_code_point(std::string_view text) {
  const unsigned char first = byte_at(text, 0);
  const size_t bytes = lead_of(first).bytes;
  if (bytes == 1) return {first, 1};
  char32_t value = first & (0x7F >> bytes);
  for (size_t i = 1; i < bytes; ++i) value = value << 6 | (byte_at(text, i) & 0x3F);
  return {value, bytes};
}

CodePoint last_code_point(std::string_view text) {
  size_t begin = text.size() - 1;
  while (is_continuation(byte_at(text, begin))) --begin;
  return first_code_point(text.substr(begin));
}

void append_utf8(std::string& text, char32_t code_point) {
  const auto append = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    append(code_point);
    return;
  }
  const int rest = code_point < 0x800 ? 1 : code_point < 0x10000 ? 2 : 3;
  append(((0xFF00 >> (rest + 1)) & 0xFF) | code_point >> (6 * rest));
  for (int i = rest - 1; i >= 0; --i) append(0x80 | (code_point >> (6 * i) & 0x3F));
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

}  // namespace farskip
