#include "farskip/plan/plan.h"

#include <algorithm>

#include "farskip/base/error.h"
#include "farskip/graph/rewrite.h"
#include "farskip/schedule/memory.h"
#include "farskip/simulate/simulate.h"

namespace farskip {

std::string Variant::rewrites() const {
  std::string text;
  auto add = [&text](const std::string& rewrite) { text += (text.empty() ? "" : ", ") + rewrite; };
  if (two_batch) add("two-batch");
  if (expert_chunks > 1) add("chunks " + std::to_string(expert_chunks));
  if (pieces > 1) add("pieces " + std::to_string(pieces));
  return text.empty() ? "-" : text;
}

std::string Variant::label() const {
  const std::string between = rewrites() == "-" ? ", " : ", " + rewrites() + ", ";
  return connectivity + between + schedule;
}

Graph build_variant(const ModelConfig& model, const Variant& variant, const StepSpec& spec) {
  const Connectivity connectivity = Connectivity::load(variant.connectivity, model.layers);
  Graph graph = build_forward(model, connectivity, spec);
  if (variant.two_batch) graph = two_batch(graph);
  if (spec.form == ParallelForm::replicated_all_reduce) graph = merge_reductions(graph);
  graph = expert_chunks(graph, variant.expert_chunks);
  return pieces(graph, variant.pieces);
}

std::vector<Variant> default_variants(const std::vector<std::string>& connectivities, int chunks,
                                      int pieces) {
  std::vector<Variant> variants;
  for (const std::string& name : connectivities) {
    if (name == "standard") {
      variants.push_back({.connectivity = name, .schedule = "blocking"});
      variants.push_back({.connectivity = name});
      variants.push_back({.connectivity = name, .two_batch = true});
      variants.push_back({.connectivity = name, .expert_chunks = chunks, .pieces = pieces});
    } else {
      variants.push_back({.connectivity = name});
      variants.push_back({.connectivity = name, .pieces = pieces});
      variants.push_back({.connectivity = name, .expert_chunks = chunks, .pieces = pieces});
    }
  }
  return variants;
}

namespace {

PlanRow simulate_variant(const PlanRequest& request, const StepSpec& step, const Variant& variant) {
  const Graph graph = build_variant(request.model, variant, step);
  const Durations durations = roofline_durations(graph, request.hardware, request.costs);
  const Contention contention = contention_of(request.hardware);
  const Schedule schedule = make_schedule(variant.schedule, graph, durations, contention);
  Timeline timeline = simulate(graph, schedule, durations, contention, host_of(request.hardware));
  PlanRow row{.step = step,
              .variant = variant,
              .metrics = measure_overlap(timeline),
              .bound = lower_bound(graph, durations),
              .parameter_bytes = parameter_bytes(graph),
              .peak_activation_bytes = peak_activation_bytes(graph, schedule),
              .timeline = {}};
  row.tokens_per_second = step.tokens / row.metrics.step;
  if (request.keep_timelines) row.timeline = std::move(timeline);
  return row;
}

bool fits(const ModelConfig& model, const StepSpec& step, const Variant& variant) {
  return variant.expert_chunks == 1 ||
         variant.expert_chunks <= model.router.experts / std::max(1, step.ranks);
}

}  // namespace

std::vector<PlanRow> make_plan(const PlanRequest& request) {
  std::vector<PlanRow> rows;
  for (const StepSpec& step : request.steps) {
    const size_t first = rows.size();
    double base = 0, best_standard = 0;
    for (const Variant& variant : request.variants) {
      if (!fits(request.model, step, variant)) continue;
      PlanRow row = simulate_variant(request, step, variant);
      const double seconds = row.metrics.step;
      if (variant.is_standard()) {
        best_standard = best_standard > 0 ? std::min(best_standard, seconds) : seconds;
        const bool plain = !variant.two_batch && variant.expert_chunks == 1 && variant.pieces == 1;
        if (plain && variant.schedule == "blocking") base = seconds;
      }
      rows.push_back(std::move(row));
    }
    if (base == 0) {
      base = simulate_variant(request, step, {.schedule = "blocking"}).metrics.step;
    }
    if (best_standard == 0) best_standard = base;
    for (size_t i = first; i < rows.size(); ++i) {
      rows[i].speedup = base / rows[i].metrics.step;
      rows[i].speedup_over_standard = best_standard / rows[i].metrics.step;
    }
  }
  return rows;
}

}  // namespace farskip
