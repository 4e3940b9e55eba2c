#include "farskip/base/format.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <span>

namespace farskip {
namespace {

struct Unit {
  double scale;
  const char* suffix;
};

// The largest unit in which the value, once rounded, is at least 1; units ascend.
std::string format_scaled(double value, int decimals, std::span<const Unit> units,
                          bool whole_in_first) {
  if (std::isnan(value)) return "-";
  const double magnitude = std::fabs(value);
  const double half_step = 0.5 * std::pow(10.0, -decimals);
  size_t index = 0;
  while (index + 1 < units.size()) {
    // 999.96 us to one decimal would read 1000.0 us: it moves on to 1.0 ms.
    const double step = (index == 0 && whole_in_first) ? 0.5 : half_step;
    const double next = units[index + 1].scale;
    if (magnitude < next - step * units[index].scale) break;
    ++index;
  }
  const int shown = (index == 0 && whole_in_first) ? 0 : decimals;
  return format_fixed(value / units[index].scale, shown) + units[index].suffix;
}

struct Range {
  char32_t first, last;
};

constexpr std::array<Range, 6> zero_width = {{{0x0300, 0x036F},
                                              {0x1AB0, 0x1AFF},
                                              {0x1DC0, 0x1DFF},
                                              {0x200B, 0x200F},
                                              {0x20D0, 0x20FF},
                                              {0xFE00, 0xFE0F}}};
constexpr std::array<Range, 9> double_width = {{{0x1100, 0x115F},
                                                {0x2E80, 0x303E},
                                                {0x3041, 0x33FF},
                                                {0x3400, 0x9FFF},
                                                {0xAC00, 0xD7A3},
                                                {0xF900, 0xFAFF},
                                                {0xFE30, 0xFE6F},
                                                {0xFF00, 0xFF60},
                                                {0x1F300, 0x1FAFF}}};

int width_of(char32_t point) {
  const auto holds = [point](Range range) { return point >= range.first && point <= range.last; };
  if (std::ranges::any_of(zero_width, holds)) return 0;
  return std::ranges::any_of(double_width, holds) ? 2 : 1;
}

// Takes one code point off the front; an invalid byte counts as U+FFFD of its own.
char32_t take_code_point(std::string_view& text) {
  const auto lead = static_cast<unsigned char>(text.front());
  const size_t length = lead < 0x80                     ? 1
                        : (lead >= 0xC2 && lead < 0xE0) ? 2
                        : (lead >= 0xE0 && lead < 0xF0) ? 3
                        : (lead >= 0xF0 && lead < 0xF5) ? 4
                                                        : 0;
  if (length == 1) {
    text.remove_prefix(1);
    return lead;
  }
  char32_t point = lead & (0xFFU >> (length + 1));
  bool valid = length > 0 && length <= text.size();
  for (size_t i = 1; valid && i < length; ++i) {
    const auto next = static_cast<unsigned char>(text[i]);
    valid = (next & 0xC0) == 0x80;
    point = (point << 6) | (next & 0x3F);
  }
  text.remove_prefix(valid ? length : 1);
  return valid ? point : U'\uFFFD';
}

}  // namespace

std::string format_fixed(double value, int decimals) {
  if (std::isnan(value)) return "-";
  std::array<char, 352> buffer;  // 309 digits of the largest double, sign, point, 17 decimals
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                    std::chars_format::fixed, std::clamp(decimals, 0, 17));
  std::string text(buffer.data(), result.ptr);
  const bool is_zero = text.find_first_not_of("-0.") == std::string::npos;
  if (is_zero && text.front() == '-') text.erase(0, 1);
  return text;
}

std::string format_integer(int64_t value) {
  std::string text = std::to_string(value);
  const size_t first_digit = value < 0 ? 1 : 0;
  for (size_t position = text.size(); position > first_digit + 3;) {
    position -= 3;
    text.insert(position, ",");
  }
  return text;
}

std::string format_bytes(double bytes, int decimals) {
  static constexpr std::array<Unit, 7> units = {{{1, " B"},
                                                 {1e3, " kB"},
                                                 {1e6, " MB"},
                                                 {1e9, " GB"},
                                                 {1e12, " TB"},
                                                 {1e15, " PB"},
                                                 {1e18, " EB"}}};
  return format_scaled(bytes, decimals, units, true);
}

std::string format_count(double count, int decimals) {
  static constexpr std::array<Unit, 7> units = {
      {{1, ""}, {1e3, " k"}, {1e6, " M"}, {1e9, " B"}, {1e12, " T"}, {1e15, " P"}, {1e18, " E"}}};
  return format_scaled(count, decimals, units, true);
}

std::string format_duration(double seconds, int decimals) {
  static constexpr std::array<Unit, 4> units = {
      {{1e-9, " ns"}, {1e-6, " us"}, {1e-3, " ms"}, {1, " s"}}};
  if (seconds == 0) return "0 s";
  return format_scaled(seconds, decimals, units, true);
}

std::string format_percent(double fraction, int decimals) {
  if (std::isnan(fraction)) return "-";
  return format_fixed(fraction * 100, decimals) + " %";
}

int display_width(std::string_view text) {
  int width = 0;
  while (!text.empty()) width += width_of(take_code_point(text));
  return width;
}

}  // namespace farskip
