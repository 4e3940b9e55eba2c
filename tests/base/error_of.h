#pragma once

#include <string>

#include "farskip/base/error.h"

namespace farskip {

// What an action says when it throws a Thrown; other errors go on.
template <typename Thrown = Error>
std::string error_of(const auto& action) {
  try {
    action();
  } catch (const Thrown& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace farskip
