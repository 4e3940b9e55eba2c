#include "farskip/plan/plan.h"

#include <algorithm>
#include <span>
#include <utility>

#include "farskip/base/error.h"
#include "farskip/base/parallel.h"
#include "farskip/graph/differentiate.h"
#include "farskip/graph/pipeline.h"
#include "farskip/graph/rewrite.h"
#include "farskip/graph/update.h"
#include "farskip/schedule/memory.h"
#include "farskip/schedule/stages.h"
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
  std::string text = connectivity;
  if (rewrites() != "-") text += ", " + rewrites();
  if (recompute != RecomputeKind::none) text += ", recompute " + std::string(to_string(recompute));
  return text + ", " + schedule;
}

namespace {

Graph forward_and_backward(const ModelConfig& model, const Connectivity& connectivity,
                           StepSpec spec, DType gradients, RecomputeKind kind) {
  spec.head = HeadRows::all;
  spec.end = StepEnd::loss;
  return recompute(differentiate(build_forward(model, connectivity, spec), gradients), kind);
}

}  // namespace

std::vector<Graph> build_variant(const ModelConfig& model, const Variant& variant,
                                 const StepSpec& spec,
                                 const std::optional<TrainingSpec>& training) {
  const Connectivity connectivity = Connectivity::load(variant.connectivity, model.layers);
  Graph graph = training ? forward_and_backward(model, connectivity, spec, training->gradients,
                                                variant.recompute)
                         : build_forward(model, connectivity, spec);
  if (variant.two_batch) graph = two_batch(graph);
  if (spec.form == ParallelForm::replicated_all_reduce) graph = merge_reductions(graph);
  graph = expert_chunks(graph, variant.expert_chunks);
  graph = pieces(graph, variant.pieces);
  if (!training) return {fuse(graph)};
  std::vector<Graph> stages = {graph};
  if (training->stages > 1 || training->micro_batches > 1) {
    stages = pipeline_stages(graph, even_stages(model.layer_count(), training->stages),
                             training->micro_batches);
  }
  for (Graph& stage : stages) {
    stage = add_update(stage, plan_buckets(stage, training->bucket_bytes), spec.ranks,
                       training->stages);
  }
  return stages;
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

std::vector<Variant> default_training_variants(const std::vector<std::string>& connectivities,
                                               int chunks, int pieces,
                                               const std::vector<RecomputeKind>& kinds) {
  std::vector<Variant> variants;
  auto add = [&](Variant variant) {
    for (RecomputeKind kind : kinds) {
      variant.recompute = kind;
      variants.push_back(variant);
    }
  };
  for (const std::string& name : connectivities) {
    const bool standard = name == "standard";
    variants.push_back({.connectivity = name, .schedule = standard ? "blocking" : "released"});
    add({.connectivity = name});
    if (standard) add({.connectivity = name, .two_batch = true});
    add({.connectivity = name, .expert_chunks = chunks, .pieces = pieces});
  }
  return variants;
}

namespace {

// Of the exchanges with experts, forward and behind the loss: reductions of gradients are
// neither's.
void tell_passes_apart(const Graph& graph, const Timeline& timeline, PlanRow& row) {
  auto exchanged = [&](bool forward) {
    return percent_overlapped(timeline, [&](const Span& span) {
      const Op& op = graph.op(span.op);
      const bool of_forward =
          !op.attributes.again && (op.kind == OpKind::dispatch || op.kind == OpKind::combine);
      return (goes_to_experts(op.kind) || comes_home(op.kind)) && forward == of_forward;
    });
  };
  row.forward_overlap = exchanged(true);
  row.backward_overlap = exchanged(false);
}

// The stages of one step, as they would run.
class SimulatedStages {
 public:
  SimulatedStages(std::vector<Graph> graphs, const PlanRequest& request, const Variant& variant)
      : graphs_(std::move(graphs)) {
    const Contention contention = contention_of(request.hardware);
    const HostModel host = host_of(request.hardware);
    std::vector<ScheduledStage> stages;
    for (const Graph& graph : graphs_) {
      durations_.push_back(roofline_durations(graph, request.hardware, request.costs));
      schedules_.push_back(
          make_schedule(variant.schedule, graph, durations_.back(), contention, host));
    }
    for (size_t i = 0; i < graphs_.size(); ++i) stages.push_back({graphs_[i], schedules_[i]});
    times_ = evaluate_stages(stages, durations_, contention, host);
  }

  PlanRow row() const {
    PlanRow row;
    for (size_t i = 0; i < graphs_.size(); ++i) {
      const LowerBound bound = lower_bound(graphs_[i], durations_[i]);
      if (i == 0 || bound.seconds() > row.bound.seconds()) {
        row.bound = bound;
        row.timeline = timeline_of(graphs_[i], schedules_[i], times_[i]);
        tell_passes_apart(graphs_[i], row.timeline, row);
      }
      row.parameter_bytes = std::max(row.parameter_bytes, parameter_bytes(graphs_[i]));
      row.peak_activation_bytes =
          std::max(row.peak_activation_bytes, peak_activation_bytes(graphs_[i], schedules_[i]));
    }
    for (const OpTimes& times : times_) {
      row.timeline.step_seconds = std::max(row.timeline.step_seconds, times.step);
    }
    row.metrics = measure_overlap(row.timeline);
    return row;
  }

 private:
  const std::vector<Graph> graphs_;
  std::vector<Durations> durations_;
  std::vector<Schedule> schedules_;
  std::vector<OpTimes> times_;
};

PlanRow simulate_variant(const PlanRequest& request, const StepSpec& step, const Variant& variant) {
  PlanRow row = SimulatedStages(build_variant(request.model, variant, step, request.training),
                                request, variant)
                    .row();
  row.step = step;
  row.variant = variant;
  row.tokens_per_second = step.tokens / row.metrics.step;
  if (request.training) {
    row.tokens_per_second *= request.training->micro_batches;
    row.tokens_per_second /= request.training->stages;
  } else {
    row.forward_overlap.reset();
    row.backward_overlap.reset();
  }
  if (!request.keep_timelines) row.timeline = {};
  return row;
}

bool fits(const PlanRequest& request, const StepSpec& step, const Variant& variant) {
  const auto& training = request.training;
  if (variant.two_batch && training && training->stages * training->micro_batches > 1) return false;
  return variant.expert_chunks == 1 ||
         variant.expert_chunks <= request.model.router.experts / std::max(1, step.ranks);
}

bool is_base(const Variant& v) {
  return v.is_standard() && v.schedule == "blocking" && !v.two_batch && v.expert_chunks == 1 &&
         v.pieces == 1 && v.recompute == RecomputeKind::none;
}

// What recomputation costs each row, by the row that is the same but for it.
void price_recomputation(std::span<PlanRow> rows) {
  for (PlanRow& row : rows) {
    Variant kept = row.variant;
    kept.recompute = RecomputeKind::none;
    const auto found = std::ranges::find(rows, kept, &PlanRow::variant);
    if (found != rows.end()) {
      row.recompute_cost = row.metrics.step / found->metrics.step - 1;
    }
  }
}

// The speed-ups of the rows of one step, against its base and its fastest standard row.
void relate(const PlanRequest& request, std::span<PlanRow> rows) {
  double base = 0, best_standard = 0;
  for (const PlanRow& row : rows) {
    if (!row.variant.is_standard()) continue;
    const double seconds = row.metrics.step;
    best_standard = best_standard > 0 ? std::min(best_standard, seconds) : seconds;
    if (is_base(row.variant)) base = seconds;
  }
  if (base == 0) {
    base = simulate_variant(request, rows[0].step, {.schedule = "blocking"}).metrics.step;
  }
  if (best_standard == 0) best_standard = base;
  for (PlanRow& row : rows) {
    row.speedup = base / row.metrics.step;
    row.speedup_over_standard = best_standard / row.metrics.step;
  }
}

}  // namespace

std::vector<PlanRow> make_plan(const PlanRequest& request) {
  std::vector<std::pair<const StepSpec*, const Variant*>> jobs;
  std::vector<size_t> ends;  // of each step's rows
  for (const StepSpec& step : request.steps) {
    for (const Variant& variant : request.variants) {
      if (fits(request, step, variant)) jobs.push_back({&step, &variant});
    }
    ends.push_back(jobs.size());
  }
  std::vector<PlanRow> rows(jobs.size());
  parallel_for(jobs.size(), [&](size_t i) {
    rows[i] = simulate_variant(request, *jobs[i].first, *jobs[i].second);
  });
  size_t begin = 0;
  for (const size_t end : ends) {
    const std::span group = std::span(rows).subspan(begin, end - begin);
    if (!group.empty()) relate(request, group);
    if (request.training) price_recomputation(group);
    begin = end;
  }
  return rows;
}

}  // namespace farskip
