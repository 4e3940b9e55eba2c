#include <iostream>

#include "farskip/base/error.h"
#include "farskip/cli/commands.h"

namespace farskip {

int report(const std::exception& error, std::optional<int> rank) {
  std::string line = "farskip: ";
  if (rank) line += "rank " + std::to_string(*rank) + ": ";
  const std::string text = error.what();
  // Libtorch's errors end in the addresses of its functions.
  line += text.substr(0, text.find("\nException raised from"));
  // One write, so that the lines of several processes do not mix.
  std::cerr << line + '\n';
  return dynamic_cast<const UsageError*>(&error) ? 2 : 1;
}

}  // namespace farskip
