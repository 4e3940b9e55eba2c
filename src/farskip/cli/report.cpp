#include <iostream>

#include "farskip/base/error.h"
#include "farskip/cli/commands.h"

namespace farskip {

int report(const std::exception& error, std::optional<int> rank) {
  std::string line = "farskip: ";
  if (rank) line += "rank " + std::to_string(*rank) + ": ";
  // One write, so that the lines of several processes do not mix.
  std::cerr << line + error.what() + '\n';
  return dynamic_cast<const UsageError*>(&error) ? 2 : 1;
}

}  // namespace farskip
