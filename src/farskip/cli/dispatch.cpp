#include "farskip/cli/dispatch.h"

#include <CLI/CLI.hpp>

namespace farskip {

DispatchForm DispatchOptions::dispatch() const {
  return form == "per-rank" ? DispatchForm::per_rank : DispatchForm::per_expert;
}

void add_dispatch_options(CLI::App& command, DispatchOptions& options) {
  command
      .add_option("--dispatch", options.form,
                  "a row per expert, or one per rank that needs it, whose experts sum before it "
                  "returns; a single rank dispatches nothing")
      ->capture_default_str()
      ->check(CLI::IsMember({"per-expert", "per-rank"}));
  command
      .add_option(
          "--wire", options.wire,
          "dispatched rows in the activations' dtype (same), or in FP8 with a scale per 128 "
          "values")
      ->capture_default_str()
      ->check(CLI::IsMember({"same", "fp8"}));
}

}  // namespace farskip
