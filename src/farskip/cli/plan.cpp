#include "farskip/plan/plan.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "farskip/base/error.h"
#include "farskip/base/format.h"
#include "farskip/base/table.h"
#include "farskip/cli/cells.h"
#include "farskip/cli/commands.h"
#include "farskip/model/builtin.h"
#include "farskip/trace/perfetto.h"
#include "farskip/trace/svg.h"

namespace farskip {
namespace {

struct PlanOptions {
  std::string model, hardware = "h200";
  std::vector<int> expert_parallel = {8};
  std::vector<double> tokens = {4096};
  double context = 2048;
  std::vector<std::string> connectivities = {"standard", "farskip", "fresh-shared",
                                             "attention-only"};
  int chunks = 4, pieces = 4, layers = 0;
  std::string precision = "bf16", dispatch = "per-rank", form = "all-to-all", routing = "model";
  double imbalance = 1.0;
  bool json = false;
  std::string trace;
};

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
  request.variants =
      default_variants(options.connectivities, exchanges ? options.chunks : 1, options.pieces);
  return request;
}

void print_table(const std::vector<PlanRow>& rows) {
  Table table({{"ranks", "", Align::right},
               {"tokens", "a rank", Align::right},
               {"connectivity", "", Align::left},
               {"rewrites", "", Align::left},
               {"schedule", "", Align::left},
               {"step", "ms", Align::right},
               {"tokens/s", "a rank", Align::right},
               {"comm", "ms", Align::right},
               {"exposed", "ms", Align::right},
               {"overlap", "%", Align::right},
               {"speed-up", "x blocking", Align::right},
               {"speed-up", "x best std", Align::right},
               {"bound", "ms", Align::right},
               {"limit", "", Align::left}});
  for (size_t i = 0; i < rows.size(); ++i) {
    const PlanRow& row = rows[i];
    const bool group = i > 0 && (rows[i - 1].step.ranks != row.step.ranks ||
                                 rows[i - 1].step.tokens != row.step.tokens);
    if (group) table.add_rule();
    table.add_row(
        {std::to_string(row.step.ranks), format_fixed(row.step.tokens, 0), row.variant.connectivity,
         row.variant.rewrites(), row.variant.schedule, milliseconds_cell(row.metrics.step),
         format_fixed(row.tokens_per_second, 0), milliseconds_cell(row.metrics.communication),
         milliseconds_cell(row.metrics.exposed), percent_cell(row.metrics.percent_overlapped),
         format_fixed(row.speedup, 2), format_fixed(row.speedup_over_standard, 2),
         milliseconds_cell(row.bound.seconds()), row.bound.limit()});
  }
  std::cout << table.to_string();
}

void print_json(const PlanOptions& options, const std::vector<PlanRow>& rows) {
  nlohmann::ordered_json out = {
      {"obtained", "simulated"},      {"model", options.model},
      {"hardware", options.hardware}, {"precision", options.precision},
      {"dispatch", options.dispatch}, {"form", options.form},
      {"routing", options.routing},   {"rows", nlohmann::ordered_json::array()}};
  for (const PlanRow& row : rows) {
    const OverlapMetrics& m = row.metrics;
    nlohmann::ordered_json entry = {{"ranks", row.step.ranks},
                                    {"tokens_per_rank", row.step.tokens},
                                    {"connectivity", row.variant.connectivity},
                                    {"schedule", row.variant.schedule},
                                    {"two_batch", row.variant.two_batch},
                                    {"expert_chunks", row.variant.expert_chunks},
                                    {"pieces", row.variant.pieces},
                                    {"step_seconds", m.step},
                                    {"tokens_per_second", row.tokens_per_second},
                                    {"communication_seconds", m.communication},
                                    {"exposed_seconds", m.exposed},
                                    {"speedup_over_blocking", row.speedup},
                                    {"speedup_over_best_standard", row.speedup_over_standard},
                                    {"bound_seconds", row.bound.seconds()},
                                    {"bound_limit", row.bound.limit()},
                                    {"weight_bytes", row.parameter_bytes},
                                    {"peak_activation_bytes", row.peak_activation_bytes}};
    entry["percent_overlapped"] = m.percent_overlapped
                                      ? nlohmann::ordered_json(*m.percent_overlapped)
                                      : nlohmann::ordered_json(nullptr);
    out["rows"].push_back(std::move(entry));
  }
  std::cout << out.dump(2) << '\n';
}

// The first size: everything for Perfetto; for the eye the serial step above the fastest one.
void write_traces(const PlanOptions& options, int layers, const std::vector<PlanRow>& rows) {
  std::vector<Timeline> timelines, picture;
  const PlanRow* fastest = &rows.front();
  for (const PlanRow& row : rows) {
    const StepSpec &step = row.step, &first = rows.front().step;
    if (step.ranks != first.ranks || step.tokens != first.tokens) break;
    timelines.push_back(row.timeline);
    if (row.variant.schedule == "blocking" && picture.empty()) picture.push_back(row.timeline);
    if (row.metrics.step < fastest->metrics.step) fastest = &row;
  }
  picture.push_back(fastest->timeline);
  const std::filesystem::path folder(options.trace);
  std::filesystem::create_directories(folder);
  write_perfetto(folder / "plan.perfetto.json", timelines);
  const int first_layer = std::max(1, layers / 2);
  write_svg(folder / "plan.svg", picture,
            {.title = options.model + " on " + std::to_string(rows.front().step.ranks) + " x " +
                      options.hardware + " (simulated)",
             .window = {},
             .layers = LayerRange{first_layer, std::min(layers, first_layer + 1)}});
  std::cerr << "trace: " << (folder / "plan.perfetto.json").string()
            << " (ui.perfetto.dev)\npicture: " << (folder / "plan.svg").string() << '\n';
}

void run(const PlanOptions& options) {
  const PlanRequest request = request_of(options);
  const std::vector<PlanRow> rows = make_plan(request);
  if (rows.empty()) throw UsageError("nothing to simulate", {.hint = "name a connectivity"});
  if (options.json) {
    print_json(options, rows);
  } else {
    std::cout << "simulated: " << request.model.name << ", " << options.hardware << ", "
              << options.precision << ", " << options.form << ", dispatch " << options.dispatch
              << ", routing " << options.routing << ", context " << format_fixed(options.context, 0)
              << ", " << request.model.layer_count() << " layers\n";
    print_table(rows);
    std::cout << "x blocking: over standard + blocking; x best std: over the fastest standard row "
                 "of the same size.\nbound: what no schedule can beat, and what sets it "
                 "(compute, communication, path).\n";
  }
  if (!options.trace.empty()) write_traces(options, request.model.layer_count(), rows);
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
  command->add_option("--dispatch", o->dispatch, "a row per expert, or one per rank that needs it")
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
  command->add_flag("--json", o->json, "print JSON");
  command->add_option("--trace", o->trace,
                      "folder for a Perfetto trace and an SVG of the first size");
  command->callback([o] { run(*o); });
}

}  // namespace farskip
