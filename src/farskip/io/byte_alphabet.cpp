#include "farskip/io/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "farskip/io/utf8.h"

namespace farskip {
namespace {

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<uint16_t, 256> make_characters() {
  std::array<uint16_t, 256> characters{};
  uint16_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const auto index = static_cast<size_t>(byte);
    characters[index] = stands_for_itself(byte) ? static_cast<uint16_t>(byte) : next++;
  }
  return characters;
}

constexpr std::array<uint16_t, 256> character_of_byte = make_characters();
constexpr size_t first_unused = 0x100 + 68;  // 68 bytes do not stand for themselves

constexpr std::array<int16_t, first_unused> make_bytes() {
  std::array<int16_t, first_unused> bytes{};
  bytes.fill(-1);
  for (size_t byte = 0; byte < 256; ++byte) {
    bytes[character_of_byte[byte]] = static_cast<int16_t>(byte);
  }
  return bytes;
}

constexpr std::array<int16_t, first_unused> byte_of_character = make_bytes();

}  // namespace

std::optional<std::string> bytes_from_alphabet(std::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  while (!token.empty()) {
    const CodePoint character = first_code_point(token);
    if (character.value >= first_unused || byte_of_character[character.value] < 0) {
      return std::nullopt;
    }
    bytes.push_back(static_cast<char>(byte_of_character[character.value]));
    token.remove_prefix(character.bytes);
  }
  return bytes;
}

std::string bytes_to_alphabet(std::string_view bytes) {
  std::string token;
  token.reserve(2 * bytes.size());
  for (const char byte : bytes) {
    append_utf8(token, character_of_byte[static_cast<unsigned char>(byte)]);
  }
  return token;
}

}  // namespace farskip
