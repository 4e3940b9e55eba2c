#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/cli/commands.h"
#include "farskip/cli/plan_report.h"
#include "farskip/model/builtin.h"

namespace farskip {
namespace {

StepSpec step_spec(const PlanOptions& options, int ranks, double tokens) {
  const bool fp8 = options.precision == "fp8";
  return {.form = options.form == "all-to-all" ? ParallelForm::expert_all_to_all
                                               : ParallelForm::replicated_all_reduce,
          .ranks = ranks,
          .tokens = tokens,
          .sequences = std::max(1.0, tokens / options.context),
          .context = options.context,
          .dtype = DType::bfloat16,
          .wire = fp8 ? DType::float8_e4m3 : DType::bfloat16,
          .dispatch =
              options.dispatch == "per-rank" ? DispatchForm::per_rank : DispatchForm::per_expert,
          .routing = options.routing == "model" ? RoutingMode::model : RoutingMode::balanced,
          .imbalance = options.imbalance,
          .head = HeadRows::last_of_sequence};
}

PlanRequest request_of(const PlanOptions& options) {
  PlanRequest request{
      .model = load_model(options.model),
      .hardware = load_hardware(options.hardware),
      .steps = {},
      .variants = {},
      .costs = {.gemm = options.precision == "fp8" ? DType::float8_e4m3 : DType::bfloat16},
      .keep_timelines = !options.trace.empty()};
  if (options.layers > 0) request.model = cut_layers(request.model, options.layers);
  const bool exchanges = options.form == "all-to-all";
  for (int ranks : options.expert_parallel) {
    for (double tokens : options.tokens) {
      request.steps.push_back(step_spec(options, ranks, tokens));
    }
  }
  if (options.training) {
    request.training = TrainingSpec{.bucket_bytes = options.bucket_mib * 1024 * 1024,
                                    .micro_batches = options.micro_batches,
                                    .stages = options.pipeline_stages};
    std::vector<RecomputeKind> kinds;
    for (const std::string& name : options.recompute) kinds.push_back(recompute_kind(name));
    request.variants =
        default_training_variants(options.connectivities, options.chunks, options.pieces, kinds);
  } else {
    request.variants =
        default_variants(options.connectivities, exchanges ? options.chunks : 1, options.pieces);
  }
  return request;
}

void run(const PlanOptions& options) {
  const PlanRequest request = request_of(options);
  const std::vector<PlanRow> rows = make_plan(request);
  if (rows.empty()) throw UsageError("nothing to simulate", {.hint = "name a connectivity"});
  report_plan(options, request.model, rows);
}

}  // namespace

void add_plan_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("plan", "What overlap would buy on a cluster, by simulation");
  auto o = std::make_shared<PlanOptions>();
  command
      ->add_option("model", o->model,
                   "config.json, checkpoint folder, or the name of a shipped configuration")
      ->required();
  command->add_option("--hardware", o->hardware, "profile by name, or a JSON file")
      ->capture_default_str();
  command->add_option("--expert-parallel", o->expert_parallel, "ranks, a list: 8,16,32")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 16));
  command->add_option("--tokens-per-rank", o->tokens, "tokens of one step on one rank, a list")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(1.0, 1e9));
  command->add_option("--context", o->context, "tokens of a sequence")
      ->capture_default_str()
      ->check(CLI::Range(1.0, 1e9));
  CLI::Option* connectivity =
      command
          ->add_option("--connectivity", o->connectivities,
                       "presets or JSON files, a list: standard, farskip, fresh-shared, "
                       "attention-only, mlp-only, ladder, depth-D, last-N, last-N%:PRESET")
          ->delimiter(',')
          ->capture_default_str();
  command->add_option("--expert-chunks", o->chunks, "chunks of the chunked rows")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  command->add_option("--pieces", o->pieces, "pieces of the rows with pieces")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  command->add_option("--precision", o->precision, "of matrix products and dispatch")
      ->capture_default_str()
      ->check(CLI::IsMember({"bf16", "fp8"}));
  CLI::Option* dispatch =
      command
          ->add_option("--dispatch", o->dispatch, "a row per expert, or one per rank that needs it")
          ->capture_default_str()
          ->check(CLI::IsMember({"per-rank", "per-expert"}));
  command
      ->add_option("--form", o->form,
                   "all-to-all: tokens split over ranks; all-reduce: every rank holds all tokens")
      ->capture_default_str()
      ->check(CLI::IsMember({"all-to-all", "all-reduce"}));
  command->add_option("--routing", o->routing, "model: with its groups; balanced: without")
      ->capture_default_str()
      ->check(CLI::IsMember({"model", "balanced"}));
  command->add_option("--imbalance", o->imbalance, "most loaded rank over the mean")
      ->capture_default_str()
      ->check(CLI::Range(1.0, 100.0));
  command->add_option("--layers", o->layers, "only the first layers; 0: all")
      ->capture_default_str()
      ->check(CLI::Range(0, 100000));
  CLI::Option* training = command->add_flag(
      "--training", o->training,
      "steps of training: backward pass, reduction of gradients and update as well; unless said "
      "otherwise standard and farskip, a row per expert");
  command
      ->add_option("--recompute", o->recompute,
                   "with --training: what is computed again instead of kept, a list")
      ->delimiter(',')
      ->capture_default_str()
      ->needs(training);
  command
      ->add_option("--bucket-mib", o->bucket_mib,
                   "with --training: gradients that are reduced at once, MiB")
      ->capture_default_str()
      ->check(CLI::Range(1.0, 1e6))
      ->needs(training);
  command
      ->add_option("--micro-batches", o->micro_batches,
                   "with --training: micro-batches of a step, each of --tokens-per-rank")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024))
      ->needs(training);
  command
      ->add_option("--pipeline-stages", o->pipeline_stages,
                   "with --training: stages that the layers are cut into, each on "
                   "--expert-parallel ranks")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024))
      ->needs(training);
  command->add_flag("--json", o->json, "print JSON");
  command->add_option("--trace", o->trace,
                      "folder for a Perfetto trace and an SVG of the first size");
  command->callback([o, connectivity, dispatch] {
    if (o->training && connectivity->count() == 0) o->connectivities = {"standard", "farskip"};
    if (o->training && dispatch->count() == 0) o->dispatch = "per-expert";
    run(*o);
  });
}

}  // namespace farskip
