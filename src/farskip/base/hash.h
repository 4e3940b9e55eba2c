#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <string_view>

namespace farskip {

// The finaliser of splitmix64: a bijection that spreads every input bit over all output bits.
constexpr uint64_t splitmix64(uint64_t value) {
  value += 0x9E3779B97F4A7C15ULL;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL;
  return value ^ (value >> 31);
}

// An incremental FNV-1a hash of 64 bits, the same on every machine; for identity and seeds, never
// against an adversary. Strings are hashed with their length, so ("ab", "c") and ("a", "bc")
// differ.
class Hasher {
 public:
  constexpr Hasher& add(std::string_view text) {
    add(text.size());
    for (const char character : text) add_byte(static_cast<unsigned char>(character));
    return *this;
  }
  constexpr Hasher& add(const char* text) { return add(std::string_view(text)); }
  // Integers, booleans and enums through static_cast: eight bytes each, low byte first.
  template <std::integral T>
  constexpr Hasher& add(T value) {
    const auto bits = static_cast<uint64_t>(value);
    for (int shift = 0; shift < 64; shift += 8) add_byte((bits >> shift) & 0xFF);
    return *this;
  }
  // By bits: 0.0 and -0.0 differ.
  constexpr Hasher& add(double value) { return add(std::bit_cast<uint64_t>(value)); }

  constexpr uint64_t value() const { return state_; }

 private:
  constexpr void add_byte(uint64_t byte) { state_ = (state_ ^ byte) * 0x100000001B3ULL; }

  uint64_t state_ = 0xCBF29CE484222325ULL;
};

// The seed of a named thing (a parameter, a rank's stream): depends on base and name only, so what
// else is drawn, or in which order, does not matter.
constexpr uint64_t seed_for(uint64_t base, std::string_view name) {
  return splitmix64(Hasher().add(base).add(name).value());
}

}  // namespace farskip
