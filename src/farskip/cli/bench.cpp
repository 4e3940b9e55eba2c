#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>

#include "farskip/base/error.h"
#include "farskip/cli/bench_report.h"
#include "farskip/cli/commands.h"
#include "farskip/cli/transport.h"
#include "farskip/comm/throttled.h"
#include "farskip/graph/cost.h"
#include "farskip/io/checkpoint.h"
#include "farskip/model/builtin.h"
#include "farskip/nn/determinism.h"
#include "farskip/runtime/routing_file.h"

namespace farskip {
namespace {

// Which schedules a connectivity is run with when none are named.
std::vector<std::string> schedules_of(const BenchOptions& options, const std::string& name) {
  if (!options.schedules.empty()) return options.schedules;
  if (name == "standard") return {"blocking", "overlapped"};
  return {"overlapped"};
}

std::vector<Variant> variants_of(const BenchOptions& options) {
  std::vector<Variant> variants;
  for (const std::string& name : options.connectivities) {
    for (const std::string& schedule : schedules_of(options, name)) {
      for (int chunks : options.chunks) {
        for (int pieces : options.pieces) {
          variants.push_back({.connectivity = name,
                              .schedule = schedule,
                              .expert_chunks = chunks,
                              .pieces = pieces});
        }
      }
      if (options.two_batch) {
        variants.push_back({.connectivity = name, .schedule = schedule, .two_batch = true});
      }
    }
  }
  return variants;
}

int64_t tokens_of_a_sequence(const BenchOptions& options) {
  const int64_t asked = options.sequence_length > 0 ? options.sequence_length
                                                    : std::max<int64_t>(1, options.tokens / 4);
  return std::min(asked, options.tokens);
}

// One of the two would be empty, and the row would say nothing of two-batch.
void check_two_batch(const BenchOptions& options) {
  if (!options.two_batch || tokens_of_a_sequence(options) < options.tokens) return;
  throw UsageError("two batches of one sequence",
                   {.where = "--two-batch",
                    .expected = "two sequences a rank or more",
                    .found = "one of " + std::to_string(options.tokens) + " tokens",
                    .hint = "shorten them with --sequence-length"});
}

TokenBatch make_tokens(const BenchOptions& options, const ModelConfig& model) {
  TokenBatch batch;
  batch.width = tokens_of_a_sequence(options);
  for (int rank = 0; rank < options.ranks; ++rank) {
    for (int64_t left = options.tokens; left > 0; left -= batch.width) {
      batch.lengths.push_back(std::min(left, batch.width));
    }
  }
  const int64_t count = options.tokens * options.ranks;
  if (!options.text.empty()) {
    batch.ids = tokens_from_text(options.text, count, model.vocabulary);
  } else {
    uint64_t state = options.seed;
    for (int64_t i = 0; i < count; ++i) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      batch.ids.push_back(static_cast<int64_t>((state >> 33) % model.vocabulary));
    }
  }
  return batch;
}

Bench prepare(const BenchOptions& options, const Ranks& ranks) {
  check_two_batch(options);
  const bool has_weights = std::filesystem::is_directory(options.model) && !options.random_weights;
  ModelConfig model = load_model(options.model);
  if (options.layers > 0) model = cut_layers(model, options.layers);
  if (!model.executable()) {
    throw UnsupportedError("this model can not be run",
                           {.where = model.name, .found = model.why_not_executable()});
  }
  if (!has_weights && !options.random_weights) {
    throw UsageError("a configuration has no weights",
                     {.where = options.model, .hint = "add --random-weights"});
  }
  if (options.ranks > model.router.experts) {
    throw UsageError("more ranks than experts",
                     {.where = "--ranks",
                      .expected = "1 to " + std::to_string(model.router.experts),
                      .found = std::to_string(options.ranks)});
  }
  Placement placement = Placement::contiguous(model.router.experts, options.ranks);
  const at::ScalarType dtype = options.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  std::vector<Weights> weights;
  if (has_weights) {
    weights = load_weights(Checkpoint(options.model), model, placement, ranks.here, dtype);
  } else {
    weights = random_weights(model, placement, ranks.here, dtype, options.seed, ranks.device);
  }
  TokenBatch tokens = make_tokens(options, model);
  return {std::move(model), std::move(placement), std::move(weights), std::move(tokens)};
}

Session open_session(const Bench& bench, Ranks& ranks, const std::optional<LinkOptions>& link) {
  return Session(bench.model, bench.placement, bench.weights, ranks.take_groups(link));
}

ComparisonOptions comparison_options(const BenchOptions& options) {
  ComparisonOptions comparison{.variants = variants_of(options),
                               .choose = options.choose,
                               .repeat = options.repeat,
                               .warm_up = options.warm_up,
                               .records = options.records,
                               .threads = options.transport.threads};
  comparison.dispatch = options.dispatch.dispatch();
  comparison.fp8_wire = options.dispatch.fp8();
  comparison.dtype = options.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  comparison.training = options.training;
  if (options.routing[0] == "balanced") comparison.routing = RoutingMode::balanced;
  if (options.routing[0] == "replay") comparison.routing = RoutingMode::replay;
  return comparison;
}

bool hideable(OpKind kind) {
  return kind == OpKind::attention_prepare || kind == OpKind::attention_core ||
         kind == OpKind::output_projection || kind == OpKind::shared_experts;
}

// The bandwidth at which communication takes `fill` of the compute that can hide it, from a run
// without a link.
LinkOptions filled_link(const BenchOptions& options, const Bench& bench, Ranks& ranks,
                        const RoutingRecord* replay) {
  Session session = open_session(bench, ranks, std::nullopt);
  ComparisonOptions probe = comparison_options(options);
  probe.replay = replay;
  probe.variants = {{.connectivity = "standard", .schedule = "blocking"}};
  probe.repeat = 3;
  const Comparison found = compare(session, bench.tokens, probe);
  double compute = 0, bytes = 0, collectives = 0;
  for (const Span& span : found.rows.at(0).timelines.at(0).spans) {
    if (span.name == to_string(OpKind::dispatch) || span.name == to_string(OpKind::combine)) {
      collectives += 1;
    }
    for (OpKind kind : {OpKind::attention_prepare, OpKind::attention_core,
                        OpKind::output_projection, OpKind::shared_experts}) {
      const bool moe = span.layer > 0 && bench.model.layers[span.layer - 1].routed;
      if (moe && hideable(kind) && span.name == to_string(kind)) compute += span.seconds();
    }
  }
  // Rank 0's, so that all processes choose the same link.
  const std::vector<std::vector<double>> own(session.groups().size(), {compute});
  compute = session.all_gather(own).at(0).at(0);
  bytes = static_cast<double>(found.rows[0].bytes_sent) / options.ranks;
  const double seconds = *options.link_fill * compute - collectives * options.link_us * 1e-6;
  if (!(seconds > 0)) {
    throw UsageError("latency alone is more than that",
                     {.where = "--link-fill", .hint = "lower --link-us"});
  }
  return {.bytes_per_second = bytes / seconds, .latency_seconds = options.link_us * 1e-6};
}

std::optional<LinkOptions> chosen_link(const BenchOptions& options, const Bench& bench,
                                       Ranks& ranks, const RoutingRecord* replay) {
  if (options.link_fill) return filled_link(options, bench, ranks, replay);
  if (!options.link_gbps && !options.link_gb_per_s) return std::nullopt;
  const double bytes_per_second =
      options.link_gb_per_s ? *options.link_gb_per_s * 1e9 : *options.link_gbps * 1e9 / 8;
  return LinkOptions{.bytes_per_second = bytes_per_second,
                     .latency_seconds = options.link_us * 1e-6};
}

void run(const BenchOptions& options, Ranks& ranks) {
  const Bench bench = prepare(options, ranks);
  std::optional<RoutingRecord> replay;
  if (options.routing[0] == "replay") {
    replay = read_routing(options.routing[1], bench.model, options.tokens * options.ranks);
  }
  const auto link = chosen_link(options, bench, ranks, replay ? &*replay : nullptr);
  Session session = open_session(bench, ranks, link);
  ComparisonOptions what = comparison_options(options);
  what.replay = replay ? &*replay : nullptr;
  const Comparison comparison = compare(session, bench.tokens, what);
  if (ranks.first()) {
    report_results(options, bench, comparison, link ? &*link : nullptr,
                   link_report(session.groups()));
  }
  // Gradients of fast kernels on a GPU differ from run to run.
  const bool noisy =
      options.training && options.transport.device != "cpu" && !options.deterministic;
  if (!comparison.bits.equal && !noisy) {
    throw Error("schedules of one graph gave different bits",
                {.where = comparison.bits.first_difference});
  }
}

void check_routing(const std::vector<std::string>& routing) {
  const bool ok = (routing.size() == 1 && (routing[0] == "model" || routing[0] == "balanced")) ||
                  (routing.size() == 2 && routing[0] == "replay");
  if (!ok) {
    throw UsageError("unknown routing", {.where = "--routing",
                                         .expected = "model, balanced or replay FILE",
                                         .found = routing.empty() ? "" : routing[0]});
  }
}

void add_work_options(CLI::App& command, BenchOptions& o) {
  command
      .add_option("model", o.model,
                  "checkpoint folder, config.json, or the name of a shipped configuration")
      ->required();
  command.add_option("--layers", o.layers, "only the first layers; 0: all")
      ->capture_default_str()
      ->check(CLI::Range(0, 100000));
  command.add_flag("--random-weights", o.random_weights, "weights drawn from --seed");
  add_transport_options(command, o.transport, 64);
  command.add_option("--tokens-per-rank", o.tokens, "tokens of one step on one rank")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 24));
  command
      .add_option("--sequence-length", o.sequence_length,
                  "tokens of a sequence; 0: a quarter of the rank's")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 24));
  command.add_option("--text", o.text, "text file whose words become tokens; else random ids");
  command.add_option("--dtype", o.dtype, "of weights and activations")
      ->capture_default_str()
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  command.add_flag("--training", o.training,
                   "forward and backward, gradients of all weights; else forward");
  command.add_flag("--deterministic", o.deterministic,
                   "on a GPU: only kernels whose gradients have the same bits in every run");
  command
      .add_option("--routing", o.routing,
                  "model, balanced (every expert as many rows), or replay FILE")
      ->expected(1, 2)
      ->capture_default_str();
  add_dispatch_options(command, o.dispatch);
  command.add_option("--seed", o.seed, "of random weights and tokens")->capture_default_str();
}

void add_comparison_options(CLI::App& command, BenchOptions& o) {
  auto* gbps = command.add_option("--link-gbps", o.link_gbps,
                                  "emulated link of each rank, Gb/s each way; none: memory copies");
  auto* gb_per_s =
      command.add_option("--link-gb-per-s", o.link_gb_per_s, "the same in gigabytes per second")
          ->excludes(gbps);
  command.add_option("--link-us", o.link_us, "its latency, microseconds")->capture_default_str();
  command
      .add_option("--link-fill", o.link_fill,
                  "chooses the link: communication as a share of the compute that can hide it")
      ->excludes(gbps)
      ->excludes(gb_per_s)
      ->check(CLI::Range(0.01, 100.0));
  command.add_option("--connectivity", o.connectivities, "presets or JSON files, a list")
      ->delimiter(',')
      ->capture_default_str();
  command
      .add_option("--schedule", o.schedules,
                  "blocking, released, overlapped, a list; default: overlapped, for standard "
                  "blocking too")
      ->delimiter(',')
      ->check(CLI::IsMember({"blocking", "released", "overlapped"}));
  command.add_flag("--two-batch", o.two_batch, "also run each as two micro-batches");
  command.add_option("--expert-chunks", o.chunks, "chunks of each rank's experts, a list")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  command.add_option("--pieces", o.pieces, "pieces of attention and shared experts, a list")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  command.add_flag("--choose", o.choose,
                   "of variants that are not standard, run only the one that the simulation "
                   "foresees to be the fastest, from blocking runs alone");
  command.add_option("--repeat", o.repeat, "rounds that count; in each all variants run in turn")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  command.add_flag("!--no-recording", o.records,
                   "on a GPU: launch every op of every step by itself");
  command.add_option("--warm-up", o.warm_up, "rounds before them")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000));
  command.add_flag("--json", o.json, "print JSON");
  command.add_option("--trace", o.trace, "folder for a Perfetto trace and an SVG");
}

}  // namespace

void add_bench_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "bench", "Measured overlap: variants run in turn on ranks with an emulated link");
  auto options = std::make_shared<BenchOptions>();
  add_work_options(*command, *options);
  add_comparison_options(*command, *options);
  command->callback([options] {
    check_routing(options->routing);
    at::set_num_threads(1);
    use_deterministic_kernels(options->deterministic);
    with_ranks(options->transport, [&](Ranks& ranks) {
      options->ranks = ranks.size;
      run(*options, ranks);
    });
  });
}

}  // namespace farskip
