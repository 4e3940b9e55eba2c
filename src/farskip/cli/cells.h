#pragma once

#include <optional>
#include <string>

#include "farskip/base/format.h"

namespace farskip {

// Table cells that several commands print.
inline std::string milliseconds_cell(double seconds) { return format_fixed(seconds * 1e3, 2); }
inline std::string percent_cell(const std::optional<double>& value) {
  return value ? format_fixed(*value, 1) : "-";
}

}  // namespace farskip
