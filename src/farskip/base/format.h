#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace farskip {

// Numbers as a reader wants them, the same in every locale. NaN prints as "-".

// Fixed decimals: (3.14159, 2) -> "3.14". decimals: 0 to 17.
std::string format_fixed(double value, int decimals);

// Thousands separated: 1234567 -> "1,234,567".
std::string format_integer(int64_t value);

// Decimal units: (1.5e9) -> "1.50 GB"; below 1 kB no decimals: "512 B".
std::string format_bytes(double bytes, int decimals = 2);

// Parameters, FLOPs, tokens: (6.71e11) -> "671.0 B"; below a thousand no decimals: "512".
// k, M, B (1e9), T, then P and E.
std::string format_count(double count, int decimals = 1);

// ns, us, ms or s: (0.0123) -> "12.30 ms".
std::string format_duration(double seconds, int decimals = 2);

// A fraction: (0.973) -> "97.3 %".
std::string format_percent(double fraction, int decimals = 1);

// Columns that a UTF-8 text takes on a terminal: combining marks 0, wide East Asian characters 2,
// an invalid byte 1.
int display_width(std::string_view text);

}  // namespace farskip
