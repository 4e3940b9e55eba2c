#include "farskip/cli/plan_report.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "farskip/base/format.h"
#include "farskip/base/table.h"
#include "farskip/cli/cells.h"
#include "farskip/trace/perfetto.h"
#include "farskip/trace/svg.h"

namespace farskip {
namespace {

struct PlanColumn {
  Column column;
  std::function<std::string(const PlanRow&)> cell;
};

std::vector<PlanColumn> columns_of(bool training) {
  using Row = const PlanRow&;
  std::vector<PlanColumn> columns = {
      {{"ranks", ""}, [](Row row) { return std::to_string(row.step.ranks); }},
      {{"tokens", "a rank"}, [](Row row) { return format_fixed(row.step.tokens, 0); }},
      {{"connectivity", "", Align::left}, [](Row row) { return row.variant.connectivity; }},
      {{"rewrites", "", Align::left}, [](Row row) { return row.variant.rewrites(); }}};
  auto add = [&](bool wanted, Column column, std::function<std::string(Row)> cell) {
    if (wanted) columns.push_back({std::move(column), std::move(cell)});
  };
  add(training, {"recompute", "", Align::left},
      [](Row row) { return std::string(to_string(row.variant.recompute)); });
  add(true, {"schedule", "", Align::left}, [](Row row) { return row.variant.schedule; });
  add(true, {"step", "ms"}, [](Row row) { return milliseconds_cell(row.metrics.step); });
  add(true, {"tokens/s", "a rank"}, [](Row row) { return format_fixed(row.tokens_per_second, 0); });
  add(training, {"activations", "GB"},
      [](Row row) { return format_fixed(row.peak_activation_bytes / 1e9, 2); });
  add(training, {"recomputing", "% longer"}, [](Row row) {
    return row.recompute_cost ? format_fixed(100 * *row.recompute_cost, 1) : std::string("-");
  });
  add(true, {"comm", "ms"}, [](Row row) { return milliseconds_cell(row.metrics.communication); });
  add(true, {"exposed", "ms"}, [](Row row) { return milliseconds_cell(row.metrics.exposed); });
  add(!training, {"overlap", "%"},
      [](Row row) { return percent_cell(row.metrics.percent_overlapped); });
  add(training, {"forward", "overlap %"},
      [](Row row) { return percent_cell(row.forward_overlap); });
  add(training, {"backward", "overlap %"},
      [](Row row) { return percent_cell(row.backward_overlap); });
  add(true, {"speed-up", "x blocking"}, [](Row row) { return format_fixed(row.speedup, 2); });
  add(true, {"speed-up", "x best std"},
      [](Row row) { return format_fixed(row.speedup_over_standard, 2); });
  add(true, {"bound", "ms"}, [](Row row) { return milliseconds_cell(row.bound.seconds()); });
  add(true, {"limit", "", Align::left}, [](Row row) { return std::string(row.bound.limit()); });
  return columns;
}

bool same_size(const PlanRow& a, const PlanRow& b) {
  return a.step.ranks == b.step.ranks && a.step.tokens == b.step.tokens;
}

void print_table(const PlanOptions& options, const ModelConfig& model,
                 const std::vector<PlanRow>& rows) {
  std::cout << "simulated" << (options.training ? " training: " : ": ") << model.name << ", "
            << options.hardware << ", " << options.precision << ", " << options.form
            << ", dispatch " << options.dispatch << ", routing " << options.routing << ", context "
            << format_fixed(options.context, 0) << ", " << model.layer_count() << " layers";
  if (options.micro_batches > 1 || options.pipeline_stages > 1) {
    std::cout << ", " << options.pipeline_stages << " stages of as many ranks, "
              << options.micro_batches << " micro-batches of as many tokens";
  }
  std::cout << "\n";
  const std::vector<PlanColumn> columns = columns_of(options.training);
  std::vector<Column> heads;
  for (const PlanColumn& column : columns) heads.push_back(column.column);
  Table table(heads);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i > 0 && !same_size(rows[i - 1], rows[i])) table.add_rule();
    std::vector<std::string> cells;
    for (const PlanColumn& column : columns) cells.push_back(column.cell(rows[i]));
    table.add_row(std::move(cells));
  }
  std::cout << table.to_string()
            << "x blocking: over standard + blocking; x best std: over the fastest standard row "
               "of the same size.\nbound: what no schedule can beat, and what sets it "
               "(compute, communication, path).\n";
  if (!options.training) return;
  std::cout << "activations: the most a rank holds at once; recomputing: over the same row that "
               "computes nothing again.\noverlap: of dispatches and combines, forward and behind "
               "the loss; exposed: of these and of reducing and gathering gradients and weights.\n";
}

nlohmann::ordered_json or_null(const std::optional<double>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
}

nlohmann::ordered_json to_json(const PlanRow& row, bool training) {
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
                                  {"peak_activation_bytes", row.peak_activation_bytes},
                                  {"percent_overlapped", or_null(m.percent_overlapped)}};
  if (!training) return entry;
  entry["recompute"] = to_string(row.variant.recompute);
  entry["recompute_cost"] = or_null(row.recompute_cost);
  entry["forward_percent_overlapped"] = or_null(row.forward_overlap);
  entry["backward_percent_overlapped"] = or_null(row.backward_overlap);
  return entry;
}

void print_json(const PlanOptions& options, const std::vector<PlanRow>& rows) {
  nlohmann::ordered_json out = {{"obtained", "simulated"},
                                {"step", options.training ? "training" : "forward"},
                                {"model", options.model},
                                {"hardware", options.hardware},
                                {"precision", options.precision},
                                {"dispatch", options.dispatch},
                                {"form", options.form},
                                {"routing", options.routing},
                                {"pipeline_stages", options.pipeline_stages},
                                {"micro_batches", options.micro_batches},
                                {"rows", nlohmann::ordered_json::array()}};
  for (const PlanRow& row : rows) out["rows"].push_back(to_json(row, options.training));
  std::cout << out.dump(2) << '\n';
}

// The first size: everything for Perfetto; for the eye the serial step above the fastest one.
void write_traces(const PlanOptions& options, int layers, const std::vector<PlanRow>& rows) {
  std::vector<Timeline> timelines, picture;
  const PlanRow* fastest = &rows.front();
  for (const PlanRow& row : rows) {
    if (!same_size(row, rows.front())) break;
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

}  // namespace

void report_plan(const PlanOptions& options, const ModelConfig& model,
                 const std::vector<PlanRow>& rows) {
  if (options.json) {
    print_json(options, rows);
  } else {
    print_table(options, model, rows);
  }
  if (!options.trace.empty()) write_traces(options, model.layer_count(), rows);
}

}  // namespace farskip
