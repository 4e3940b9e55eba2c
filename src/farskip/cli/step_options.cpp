#include "farskip/cli/step_options.h"

#include <CLI/CLI.hpp>
#include <utility>

#include "farskip/base/error.h"
#include "farskip/comm/chaos.h"
#include "farskip/model/stored_connectivity.h"

namespace farskip {

StepForm StepOptions::form() const {
  return {.schedule = schedule,
          .two_batch = two_batch,
          .expert_chunks = expert_chunks,
          .pieces = pieces,
          .dispatch = dispatch.dispatch(),
          .fp8_wire = dispatch.fp8(),
          .dtype = dtype == "bfloat16" ? at::kBFloat16 : at::kFloat};
}

void add_step_options(CLI::App& command, StepOptions& options) {
  command.add_option("--connectivity", options.connectivity,
                     "a preset, or a JSON file; default: what the checkpoint's config.json states, "
                     "else standard");
  command.add_option("--schedule", options.schedule, "the order of launches")
      ->capture_default_str()
      ->check(CLI::IsMember({"blocking", "released", "overlapped"}));
  command.add_flag("--two-batch", options.two_batch,
                   "split each rank's sequences into two micro-batches");
  command
      .add_option("--expert-chunks", options.expert_chunks,
                  "groups of each rank's experts that dispatch and combine take in turn")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 16));
  command
      .add_option("--pieces", options.pieces,
                  "pieces that attention and shared experts are cut into")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  add_dispatch_options(command, options.dispatch);
  command.add_option("--dtype", options.dtype, "of weights and activations")
      ->capture_default_str()
      ->check(CLI::IsMember({"float32", "bfloat16"}));
}

void require_executable(const ModelConfig& model) {
  if (model.executable()) return;
  throw UnsupportedError(
      "this model can not be run",
      {.where = model.name, .expected = {}, .found = model.why_not_executable(), .hint = {}});
}

Connectivity choose_connectivity(const StepOptions& options, const Checkpoint& checkpoint) {
  const LayerKinds& layers = checkpoint.config().layers;
  if (options.connectivity) return Connectivity::load(*options.connectivity, layers);
  const auto stored = read_stored_connectivity(checkpoint.folder(), layers);
  return stored ? *stored : Connectivity::preset("standard", layers);
}

PlannedStep plan_step(const ModelConfig& model, const Connectivity& connectivity, int ranks,
                      std::span<const int64_t> lengths, const StepOptions& options) {
  try {
    return plan_step(model, connectivity, ranks, lengths, options.form());
  } catch (const GraphError& error) {
    throw UsageError(error.what());
  }
}

Session open_session(const Checkpoint& checkpoint, const StepOptions& options, Ranks& ranks,
                     const std::optional<uint64_t>& chaos) {
  const ModelConfig& model = checkpoint.config();
  const Placement placement = Placement::contiguous(model.router.experts, ranks.size);
  std::vector<Weights> weights =
      load_weights(checkpoint, model, placement, ranks.here, options.form().dtype);
  auto groups = ranks.take_groups();
  if (chaos) groups = make_chaos(std::move(groups), *chaos);
  return Session(model, placement, std::move(weights), std::move(groups));
}

}  // namespace farskip
