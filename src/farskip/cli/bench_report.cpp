#include "farskip/cli/bench_report.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "farskip/base/format.h"
#include "farskip/base/table.h"
#include "farskip/cli/cells.h"
#include "farskip/cli/machine.h"
#include "farskip/trace/metrics.h"
#include "farskip/trace/perfetto.h"
#include "farskip/trace/svg.h"
#include "farskip/trace/unhidden.h"

namespace farskip {
namespace {

void print_table(const Comparison& comparison) {
  Table table({{"connectivity", "", Align::left},
               {"rewrites", "", Align::left},
               {"schedule", "", Align::left},
               {"step", "ms", Align::right},
               {"spread", "ms", Align::right},
               {"tokens/s", "", Align::right},
               {"comm", "ms", Align::right},
               {"exposed", "ms", Align::right},
               {"overlap", "%", Align::right},
               {"interior", "%", Align::right},
               {"forward", "%", Align::right},
               {"backward", "%", Align::right},
               {"speed-up", "x blocking", Align::right},
               {"speed-up", "x best std", Align::right},
               {"bound", "ms", Align::right},
               {"step/bound", "", Align::right},
               {"predicted", "ms", Align::right},
               {"error", "%", Align::right}});
  for (const ComparisonRow& row : comparison.rows) {
    const double bound = row.bound.seconds();
    table.add_row(
        {row.variant.connectivity, row.variant.rewrites(), row.variant.schedule,
         milliseconds_cell(row.step.median),
         milliseconds_cell(row.step.smallest) + "-" + milliseconds_cell(row.step.largest),
         format_fixed(row.tokens_per_second, 0), milliseconds_cell(row.metrics.communication),
         milliseconds_cell(row.metrics.exposed), percent_cell(row.metrics.percent_overlapped),
         percent_cell(row.metrics.interior_percent), percent_cell(row.metrics.forward_percent),
         percent_cell(row.metrics.backward_percent), format_fixed(row.speedup, 2),
         format_fixed(row.speedup_over_standard, 2), milliseconds_cell(bound),
         format_fixed(row.over_bound, 3), milliseconds_cell(row.predicted),
         format_fixed(100 * row.prediction_error, 1)});
  }
  std::cout << table.to_string();
}

// Where overlap fell short of what the row's schedule asked for.
std::optional<Unhidden> shortfall(const ComparisonRow& row) {
  if (row.variant.schedule == "blocking" || row.timelines.empty()) return std::nullopt;
  return find_unhidden(row.timelines[0], row.simulated);
}

nlohmann::ordered_json to_json(const Variant& variant) {
  return {{"connectivity", variant.connectivity},
          {"schedule", variant.schedule},
          {"two_batch", variant.two_batch},
          {"expert_chunks", variant.expert_chunks},
          {"pieces", variant.pieces}};
}

nlohmann::ordered_json to_json(const std::map<OpKind, double>& by_kind) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [kind, factor] : by_kind) json[to_string(kind)] = factor;
  return json;
}

nlohmann::ordered_json to_json(const ComparisonRow& row) {
  const auto unhidden = shortfall(row);
  auto number = [](const std::optional<double>& value) {
    return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
  };
  nlohmann::ordered_json json = to_json(row.variant);
  json.update(nlohmann::ordered_json{
      {"step_seconds", row.step.median},
      {"step_seconds_min", row.step.smallest},
      {"step_seconds_max", row.step.largest},
      {"backward_seconds",
       number(row.timelines.empty() ? std::nullopt : backward_seconds(row.timelines[0]))},
      {"tokens_per_second", row.tokens_per_second},
      {"communication_seconds", row.metrics.communication},
      {"exposed_seconds", row.metrics.exposed},
      {"percent_overlapped", number(row.metrics.percent_overlapped)},
      {"interior_exposed_seconds", row.metrics.interior_exposed},
      {"interior_percent_overlapped", number(row.metrics.interior_percent)},
      {"forward_interior_percent", number(row.metrics.forward_percent)},
      {"backward_interior_percent", number(row.metrics.backward_percent)},
      {"skew_seconds", row.metrics.skew},
      {"speedup_over_blocking", row.speedup},
      {"speedup_over_best_standard", row.speedup_over_standard},
      {"bound_seconds", row.bound.seconds()},
      {"bound_limit", row.bound.limit()},
      {"step_over_bound", row.over_bound},
      {"step_over_loaded_bound", row.over_loaded_bound},
      {"load_rested", row.load.rested},
      {"load_steady", row.load.steady},
      {"load_slowdown", row.load.slowdown},
      {"load_by_kind", to_json(row.load_by_kind)},
      {"contention_by_kind", to_json(row.contention_by_kind)},
      {"predicted_seconds", row.predicted},
      {"prediction_error", row.prediction_error},
      {"compute_slowdown", row.compute_slowdown},
      {"predicted_interior_percent", number(measure_overlap(row.simulated).interior_percent)},
      {"bytes_sent", row.bytes_sent},
      {"peak_activation_bytes", row.peak_activation_bytes},
      {"predicted_peak_activation_bytes", row.predicted_peak_bytes},
      {"untimed_step_seconds", row.untimed_step.median},
      {"untimed_speedup_over_best_standard", row.untimed_speedup_over_standard},
      {"host_seconds", row.host.median},
      {"layers_host_seconds", row.layers_host.median},
      {"layers_host_seconds_min", row.layers_host.smallest},
      {"unhidden", unhidden ? nlohmann::ordered_json(describe(*unhidden)) : nullptr}});
  return json;
}

nlohmann::ordered_json to_json(const Foreseen& foreseen) {
  nlohmann::ordered_json json = to_json(foreseen.variant);
  json["foreseen_seconds"] = foreseen.seconds;
  return json;
}

nlohmann::ordered_json to_json(const LinkReport& link) {
  return {{"bytes_per_second", link.link.bytes_per_second},
          {"latency_seconds", link.link.latency_seconds},
          {"achieved_bytes_per_second", link.achieved_bytes_per_second()},
          {"late_us_mean", link.mean_late_us},
          {"late_us_p50", link.p50_late_us},
          {"late_us_p99", link.p99_late_us}};
}

void print_json(const BenchOptions& options, const Bench& bench, const Comparison& comparison,
                const std::optional<LinkReport>& link) {
  nlohmann::ordered_json out = {{"obtained", "measured"},
                                {"machine", describe_machine(options.transport.device != "cpu")},
                                {"model", bench.model.name},
                                {"layers", bench.model.layer_count()},
                                {"transport", options.transport.name},
                                {"stand_in", options.transport.name == "loopback"},
                                {"ranks", options.ranks},
                                {"step", options.training ? "forward and backward" : "forward"},
                                {"tokens_per_rank", options.tokens},
                                {"dtype", options.dtype},
                                {"routing", options.routing[0]},
                                {"recorded", options.records && options.transport.device != "cpu"},
                                {"dispatch", options.dispatch.form},
                                {"wire", options.dispatch.wire},
                                {"repeat", options.repeat},
                                {"contention_compute", comparison.contention.compute},
                                {"contention_communication", comparison.contention.communication},
                                {"bits_equal", comparison.bits.equal},
                                {"bits_compared", comparison.bits.compared},
                                {"gradient_noise", comparison.bits.gradient_noise},
                                {"rows", nlohmann::ordered_json::array()}};
  if (options.transport.name == "loopback") out["path"] = options.transport.loopback_path;
  if (link) out["link"] = to_json(*link);
  for (const ComparisonRow& row : comparison.rows) out["rows"].push_back(to_json(row));
  for (const Foreseen& one : comparison.weighed) out["weighed"].push_back(to_json(one));
  std::cout << out.dump(2) << '\n';
}

void print_head(const BenchOptions& options, const Bench& bench, const LinkOptions* link) {
  std::cout << "measured: " << bench.model.name << ", " << bench.model.layer_count() << " layers, "
            << (options.training ? "forward and backward, " : "") << options.ranks << " "
            << options.transport.name << " ranks x " << options.tokens << " tokens, "
            << options.dtype << ", routing " << options.routing[0] << ", "
            << options.dispatch.describe() << ", weights "
            << (options.random_weights ? "random" : "of the checkpoint") << ", median of "
            << options.repeat << " rounds\n";
  if (options.transport.name == "loopback") {
    std::cout << "stand-in: one rank stands for all " << options.ranks << ", path "
              << options.transport.loopback_path
              << "; a load like that of real ranks, whose logits mean nothing\n";
  }
  if (link) {
    std::cout << "link: emulated, " << format_fixed(link->bytes_per_second * 8e-9, 3) << " Gb/s ("
              << format_bytes(link->bytes_per_second) << "/s) and "
              << format_fixed(link->latency_seconds * 1e6, 0) << " us each way\n";
  }
}

// Memory and launch cost of the fastest row, and shortfalls.
void print_notes(const Bench& bench, const Comparison& comparison) {
  const ComparisonRow& fastest = *std::ranges::min_element(
      comparison.rows, {}, [](const ComparisonRow& row) { return row.step.median; });
  std::cout << "fastest row: activations of at most "
            << format_bytes(static_cast<double>(fastest.peak_activation_bytes)) << " a rank, "
            << format_bytes(fastest.predicted_peak_bytes) << " predicted; its compute ops took "
            << format_fixed(fastest.compute_slowdown, 3) << " times what they do in a blocking run";
  if (fastest.over_loaded_bound != fastest.over_bound) {
    std::cout << "; with what such a load costs a device counted in, step/bound is "
              << format_fixed(fastest.over_loaded_bound, 3);
  }
  if (fastest.host.median > 0) {
    const int layers = bench.model.layer_count();
    std::cout << "; without timelines a step takes "
              << format_duration(fastest.untimed_step.median, 2) << ", "
              << format_fixed(fastest.untimed_speedup_over_standard, 2)
              << " x as fast as the best standard row, and the host launches a layer in "
              << format_duration(fastest.layers_host.median / layers, 0) << ", "
              << format_duration(fastest.layers_host.smallest / layers, 0) << " at best";
  }
  std::cout << ".\n";
  for (const ComparisonRow& row : comparison.rows) {
    if (const auto unhidden = shortfall(row)) {
      std::cout << "warning: " << row.variant.label() << " hid less than asked for, most at "
                << describe(*unhidden) << '\n';
    }
  }
}

void print_choice(const std::vector<Foreseen>& weighed) {
  if (weighed.empty()) return;
  std::cout << "chosen before the run: " << weighed[0].variant.label() << ", foreseen "
            << format_duration(weighed[0].seconds, 2);
  if (weighed.size() > 1) {
    std::cout << "; " << weighed[1].variant.label() << ", the next of " << weighed.size() - 1
              << " others, " << format_duration(weighed[1].seconds, 2);
  }
  std::cout << '\n';
}

void print_foot(const Comparison& comparison, const std::optional<LinkReport>& link,
                bool training) {
  std::cout << "interior: overlap without the first dispatch and the last combine. bound: no "
               "schedule of the graph is faster;\nfrom op durations of blocking runs in the same "
               "rounds, as is "
               "predicted (simulated). Contention while both run, measured apart: compute x "
            << format_fixed(comparison.contention.compute, 3) << ", communication x "
            << format_fixed(comparison.contention.communication, 3) << ".\n";
  if (link && link->collectives > 0) {
    std::cout << "path: " << format_bytes(link->achieved_bytes_per_second()) << "/s achieved";
    if (link->link.bytes_per_second > 0) {
      std::cout << ", " << format_bytes(link->link.bytes_per_second) << "/s asked for";
    }
    std::cout << '\n';
  }
  if (link && link->link.bytes_per_second > 0) {
    std::cout << "link lateness: mean " << format_fixed(link->mean_late_us, 0) << " us, median "
              << format_fixed(link->p50_late_us, 0) << " us, 99th percentile "
              << format_fixed(link->p99_late_us, 0) << " us\n";
  }
  std::cout << "bits: "
            << (comparison.bits.equal
                    ? "identical " + std::string(training ? "gradients" : "logits") + " in all " +
                          std::to_string(comparison.bits.compared) + " runs that have one to equal"
                    : "DIFFERENT: " + comparison.bits.first_difference)
            << '\n';
  if (comparison.bits.gradient_noise > 0) {
    std::cout << "noise: the norm of a gradient differs by up to "
              << format_fixed(comparison.bits.gradient_noise * 1e6, 2)
              << " parts in a million from run to run\n";
  }
}

void write_traces(const BenchOptions& options, const Bench& bench, const Comparison& comparison) {
  const std::filesystem::path folder(options.trace);
  std::filesystem::create_directories(folder);
  std::vector<Timeline> all, picture;
  for (const ComparisonRow& row : comparison.rows) {
    all.insert(all.end(), row.timelines.begin(), row.timelines.end());
    all.push_back(row.simulated);
  }
  // Serial above overlapped: the base, then the fastest.
  const auto fastest = std::ranges::min_element(
      comparison.rows, {}, [](const ComparisonRow& row) { return row.step.median; });
  for (const ComparisonRow& row : comparison.rows) {
    const bool base = row.variant.is_standard() && row.variant.schedule == "blocking";
    if (base && picture.empty()) picture.push_back(row.timelines.at(0));
  }
  picture.push_back(fastest->timelines.at(0));
  write_perfetto(folder / "bench.perfetto.json", all);
  write_svg(
      folder / "bench.svg", picture,
      {.title = bench.model.name + ", rank 0 of " + std::to_string(options.ranks) + " (measured)",
       .window = {},
       .layers = {}});
  std::cerr << "trace: " << (folder / "bench.perfetto.json").string()
            << " (ui.perfetto.dev)\npicture: " << (folder / "bench.svg").string() << '\n';
}

}  // namespace

void report_results(const BenchOptions& options, const Bench& bench, const Comparison& comparison,
                    const LinkOptions* link, const std::optional<LinkReport>& seen) {
  if (options.json) {
    print_json(options, bench, comparison, seen);
  } else {
    print_head(options, bench, link);
    print_table(comparison);
    print_choice(comparison.weighed);
    print_foot(comparison, seen, options.training);
    print_notes(bench, comparison);
  }
  if (!options.trace.empty()) write_traces(options, bench, comparison);
}

}  // namespace farskip
