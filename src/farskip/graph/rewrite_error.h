#pragma once

#include <string>

#include "farskip/base/error.h"

namespace farskip {

// Throws GraphError naming the rewrite, what it needs and what the graph has.
inline void require_for_rewrite(bool condition, const char* rewrite, const std::string& expected,
                                const std::string& found) {
  if (condition) return;
  throw GraphError("the rewrite does not apply",
                   {.where = rewrite, .expected = expected, .found = found});
}

}  // namespace farskip
