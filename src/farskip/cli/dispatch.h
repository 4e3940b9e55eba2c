#pragma once

#include <string>

#include "farskip/graph/graph.h"

namespace CLI {
class App;
}

namespace farskip {

// How a command's tokens travel to their experts, as its flags say.
struct DispatchOptions {
  std::string form = "per-expert";  // --dispatch
  std::string wire = "same";        // --wire
  DispatchForm dispatch() const;
  bool fp8() const { return wire == "fp8"; }
  // "dispatch per-rank, wire fp8"
  std::string describe() const { return "dispatch " + form + ", wire " + wire; }
};

// Adds --dispatch and --wire. `options` must outlive the parse.
void add_dispatch_options(CLI::App& command, DispatchOptions& options);

}  // namespace farskip
