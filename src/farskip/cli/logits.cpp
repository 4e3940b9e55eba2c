#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/cli/commands.h"
#include "farskip/comm/chaos.h"
#include "farskip/comm/local.h"
#include "farskip/io/checkpoint.h"
#include "farskip/io/safetensors.h"
#include "farskip/io/tokens.h"
#include "farskip/runtime/session.h"

namespace farskip {
namespace {

struct LogitsOptions {
  std::string checkpoint, tokens, output;
  int ranks = 1;
  std::string connectivity = "standard";
  StepForm form;
  std::string dtype = "float32", transport = "local";
  std::optional<uint64_t> chaos;
  double deadline = 60;
};

Session make_session(const LogitsOptions& options, const Checkpoint& checkpoint) {
  const ModelConfig& model = checkpoint.config();
  const Placement placement = Placement::contiguous(model.router.experts, options.ranks);
  std::vector<int> ranks(options.ranks);
  std::iota(ranks.begin(), ranks.end(), 0);
  auto groups = make_local_groups(options.ranks,
                                  {.deadline = std::chrono::duration<double>(options.deadline)});
  if (options.chaos) groups = make_chaos(std::move(groups), *options.chaos);
  return Session(model, placement,
                 load_weights(checkpoint, model, placement, ranks, options.form.dtype),
                 std::move(groups));
}

// A rewrite that does not fit the model is a wrong flag here.
PlannedStep plan(const LogitsOptions& options, const ModelConfig& model, const TokenBatch& tokens) {
  const Connectivity connectivity = Connectivity::load(options.connectivity, model.layers);
  try {
    return plan_step(model, connectivity, options.ranks, tokens.lengths, options.form);
  } catch (const GraphError& error) {
    throw UsageError(error.what());
  }
}

void run(LogitsOptions options) {
  at::set_num_threads(1);
  options.form.dtype = options.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  const Checkpoint checkpoint(options.checkpoint);
  const ModelConfig& model = checkpoint.config();
  if (!model.executable()) {
    throw UnsupportedError(
        "this model can not be run",
        {.where = model.name, .expected = {}, .found = model.why_not_executable(), .hint = {}});
  }
  const TokenBatch tokens = read_tokens(options.tokens, model.vocabulary);
  const PlannedStep step = plan(options, model, tokens);
  Session session = make_session(options, checkpoint);
  const ForwardResult result = session.run(step, tokens, {.chaos_seed = options.chaos});
  const at::Tensor logits = pad_sequences(result.logits(), tokens.lengths, tokens.width);
  const NamedTensor named{"logits", logits};
  write_safetensors(options.output, std::span(&named, 1));
  std::cerr << options.output << ": logits " << tokens.batch() << " x " << tokens.width << " x "
            << model.vocabulary << " of " << model.name << ", " << step.graph.description() << ", "
            << step.schedule.name << ", " << options.ranks
            << (options.ranks == 1 ? " rank\n" : " ranks\n");
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
  command.add_option("--dtype", options.dtype, "of weights and activations")
      ->capture_default_str()
      ->check(CLI::IsMember({"float32", "bfloat16"}));
}

void add_rank_options(CLI::App& command, LogitsOptions& options) {
  command.add_option("--ranks", options.ranks, "thread ranks that share the experts")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  command.add_option("--transport", options.transport, "how ranks communicate")
      ->capture_default_str()
      ->check(CLI::IsMember({"local"}));
  command.add_option("--chaos", options.chaos,
                     "delay computation and communication at random, from this seed");
  command.add_option("--deadline", options.deadline, "longest wait for another rank, in seconds")
      ->capture_default_str()
      ->check(CLI::Range(1e-3, 1e7));
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
  add_rank_options(*command, *options);
  add_form_options(*command, *options);
  command->callback([options] { run(*options); });
}

}  // namespace farskip
