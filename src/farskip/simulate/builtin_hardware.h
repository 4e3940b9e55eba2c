#pragma once

#include <span>
#include <string_view>

namespace farskip {

// A profile of data/hardware that travels inside the library.
struct BuiltinHardware {
  std::string_view name, json;
};
std::span<const BuiltinHardware> builtin_hardware();

}  // namespace farskip
