#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "farskip/cli/commands.h"
#include "farskip/cli/step_options.h"
#include "farskip/io/safetensors.h"
#include "farskip/io/tokens.h"

namespace farskip {
namespace {

struct LogitsOptions {
  std::string checkpoint, tokens, output;
  StepOptions step;
  std::optional<uint64_t> chaos;
  TransportOptions transport;
};

void run(const LogitsOptions& options, Ranks& ranks) {
  const Checkpoint checkpoint(options.checkpoint);
  const ModelConfig& model = checkpoint.config();
  require_executable(model);
  const TokenBatch tokens = read_tokens(options.tokens, model.vocabulary);
  const Connectivity connectivity = choose_connectivity(options.step, checkpoint);
  const PlannedStep step = plan_step(model, connectivity, ranks.size, tokens.lengths, options.step);
  Session session = open_session(checkpoint, options.step, ranks, options.chaos);
  const ForwardResult result = session.run(
      step, tokens, {.chaos_seed = options.chaos, .threads = options.transport.threads});
  const at::Tensor flat = session.gather_logits(result);
  if (!ranks.first()) return;
  const at::Tensor logits = pad_sequences(flat, tokens.lengths, tokens.width);
  const NamedTensor named{"logits", logits};
  write_safetensors(options.output, std::span(&named, 1));
  std::cerr << options.output << ": logits " << tokens.batch() << " x " << tokens.width << " x "
            << model.vocabulary << " of " << model.name << ", " << step.graph.description() << ", "
            << step.schedule.name << ", " << options.step.dispatch.describe() << ", " << ranks.size
            << (ranks.size == 1 ? " rank\n" : " ranks\n");
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
  add_step_options(*command, options->step);
  command->callback([options] {
    at::set_num_threads(1);
    with_ranks(options->transport, [&](Ranks& ranks) { run(*options, ranks); });
  });
}

}  // namespace farskip
