#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/cli/commands.h"
#include "farskip/cli/dispatch.h"
#include "farskip/cli/transport.h"
#include "farskip/comm/chaos.h"
#include "farskip/io/checkpoint.h"
#include "farskip/io/safetensors.h"
#include "farskip/io/tokens.h"
#include "farskip/runtime/session.h"

namespace farskip {
namespace {

struct LogitsOptions {
  std::string checkpoint, tokens, output;
  std::string connectivity = "standard";
  StepForm form;
  DispatchOptions dispatch;
  std::string dtype = "float32";
  std::optional<uint64_t> chaos;
  TransportOptions transport;
};

Session make_session(const LogitsOptions& options, const Checkpoint& checkpoint, Ranks& ranks) {
  const ModelConfig& model = checkpoint.config();
  const Placement placement = Placement::contiguous(model.router.experts, ranks.size);
  std::vector<Weights> weights =
      load_weights(checkpoint, model, placement, ranks.here, options.form.dtype);
  auto groups = ranks.take_groups();
  if (options.chaos) groups = make_chaos(std::move(groups), *options.chaos);
  return Session(model, placement, std::move(weights), std::move(groups));
}

// A rewrite that does not fit the model is a wrong flag here.
PlannedStep plan(const LogitsOptions& options, const ModelConfig& model, int ranks,
                 const TokenBatch& tokens) {
  const Connectivity connectivity = Connectivity::load(options.connectivity, model.layers);
  try {
    return plan_step(model, connectivity, ranks, tokens.lengths, options.form);
  } catch (const GraphError& error) {
    throw UsageError(error.what());
  }
}

void run(const LogitsOptions& options, Ranks& ranks) {
  const Checkpoint checkpoint(options.checkpoint);
  const ModelConfig& model = checkpoint.config();
  if (!model.executable()) {
    throw UnsupportedError(
        "this model can not be run",
        {.where = model.name, .expected = {}, .found = model.why_not_executable(), .hint = {}});
  }
  const TokenBatch tokens = read_tokens(options.tokens, model.vocabulary);
  const PlannedStep step = plan(options, model, ranks.size, tokens);
  Session session = make_session(options, checkpoint, ranks);
  const ForwardResult result = session.run(
      step, tokens, {.chaos_seed = options.chaos, .threads = options.transport.threads});
  const at::Tensor flat = session.gather_logits(result);
  if (!ranks.first()) return;
  const at::Tensor logits = pad_sequences(flat, tokens.lengths, tokens.width);
  const NamedTensor named{"logits", logits};
  write_safetensors(options.output, std::span(&named, 1));
  std::cerr << options.output << ": logits " << tokens.batch() << " x " << tokens.width << " x "
            << model.vocabulary << " of " << model.name << ", " << step.graph.description() << ", "
            << step.schedule.name << ", " << options.dispatch.describe() << ", " << ranks.size
            << (ranks.size == 1 ? " rank\n" : " ranks\n");
}

void add_form_options(CLI::App& command, LogitsOptions& options) {
  command.add_option("--connectivity", options.connectivity, "a preset, or a JSON file")
      ->capture_default_str();
  command.add_option("--schedule", options.form.schedule, "the order of launches")
      ->capture_default_str()
      ->check(CLI::IsMember({"blocking", "released", "overlapped"}));
  command.add_flag("--two-batch", options.form.two_batch,
                   "split each rank's sequences into two micro-batches");
  command
      .add_option("--expert-chunks", options.form.expert_chunks,
                  "groups of each rank's experts that dispatch and combine take in turn")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 16));
  command
      .add_option("--pieces", options.form.pieces,
                  "pieces that attention and shared experts are cut into")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  add_dispatch_options(command, options.dispatch);
  command.add_option("--dtype", options.dtype, "of weights and activations")
      ->capture_default_str()
      ->check(CLI::IsMember({"float32", "bfloat16"}));
}

}  // namespace

void add_logits_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("logits", "Logits of a checkpoint for given tokens");
  auto options = std::make_shared<LogitsOptions>();
  command->add_option("checkpoint", options->checkpoint, "Hugging Face checkpoint folder")
      ->required();
  command
      ->add_option("--tokens", options->tokens,
                   "safetensors file with input_ids int64 [batch, length] and, where rows are "
                   "shorter, lengths int64 [batch]")
      ->required();
  command
      ->add_option("--output", options->output,
                   "safetensors file for logits float32 [batch, length, vocabulary], zeros behind "
                   "a row's length")
      ->required();
  add_transport_options(*command, options->transport, 256);
  command->add_option("--chaos", options->chaos,
                      "delay computation and communication at random, from this seed");
  add_form_options(*command, *options);
  command->callback([options] {
    at::set_num_threads(1);
    options->form.dtype = options->dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
    options->form.dispatch = options->dispatch.dispatch();
    options->form.fp8_wire = options->dispatch.fp8();
    with_ranks(options->transport, [&](Ranks& ranks) { run(*options, ranks); });
  });
}

}  // namespace farskip
