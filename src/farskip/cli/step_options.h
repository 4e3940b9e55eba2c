#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "farskip/cli/dispatch.h"
#include "farskip/cli/transport.h"
#include "farskip/io/checkpoint.h"
#include "farskip/runtime/session.h"
#include "farskip/runtime/step_plan.h"

namespace farskip {

// How a command runs forward steps of a checkpoint, as its flags say.
struct StepOptions {
  std::optional<std::string> connectivity;  // else the checkpoint's own
  std::string schedule = "overlapped";
  std::string dtype = "float32";
  bool two_batch = false;
  int expert_chunks = 1, pieces = 1;
  DispatchOptions dispatch;

  StepForm form() const;
};

// Adds --connectivity, --schedule, --two-batch, --expert-chunks, --pieces, --dispatch, --wire and
// --dtype. `options` must outlive the parse.
void add_step_options(CLI::App& command, StepOptions& options);

// Throws UnsupportedError for a model that can not be run.
void require_executable(const ModelConfig& model);

// The connectivity of the flag; without one that which the checkpoint states, else standard. Throws
// what Connectivity::load and read_stored_connectivity throw.
Connectivity choose_connectivity(const StepOptions& options, const Checkpoint& checkpoint);

// plan_step as the flags say; a rewrite that does not fit the model is a wrong flag. Throws
// UsageError, and what plan_step throws.
PlannedStep plan_step(const ModelConfig& model, const Connectivity& connectivity, int ranks,
                      std::span<const int64_t> lengths, const StepOptions& options);

// The checkpoint's weights on the ranks of this process; a seed delays communication at random.
// Throws what load_weights and Ranks::take_groups throw.
Session open_session(const Checkpoint& checkpoint, const StepOptions& options, Ranks& ranks,
                     const std::optional<uint64_t>& chaos = {});

}  // namespace farskip
