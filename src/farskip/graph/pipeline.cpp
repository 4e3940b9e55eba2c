#include "farskip/graph/pipeline.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "farskip/base/error.h"
#include "farskip/graph/rewrite_error.h"
#include "farskip/graph/stage_split.h"

namespace farskip {
namespace {

// Where a value goes from its home: to the stages [lowest, highest], each passing it on.
struct Journey {
  int home = none, lowest = none, highest = none;
  int message = none;  // its number, of a value that leaves its home

  bool leaves() const { return lowest < highest; }
  bool comes_to(int stage) const { return stage != home && lowest <= stage && stage <= highest; }
  int comes_from(int stage) const { return stage > home ? stage - 1 : stage + 1; }
  bool goes_up(int stage) const { return home <= stage && stage < highest; }
  bool goes_down(int stage) const { return lowest < stage && stage <= home; }
};

// By value of the split. Numbers follow the order in which values are made.
std::vector<Journey> journeys_of(const StageSplit& split) {
  std::vector<Journey> journeys(split.values().size());
  for (const Value& value : split.values()) {
    Journey& journey = journeys[value.id];
    journey.home = journey.lowest = journey.highest = split.home(value.id);
  }
  for (const StagedOp& staged : split.ops()) {
    for (ValueId id : staged.op.inputs) {
      Journey& journey = journeys[id];
      if (journey.home == none) continue;
      journey.lowest = std::min(journey.lowest, staged.stage);
      journey.highest = std::max(journey.highest, staged.stage);
    }
  }
  int messages = 0;
  for (const StagedOp& staged : split.ops()) {
    for (ValueId id : staged.op.outputs) {
      Journey& journey = journeys[id];
      if (!journey.leaves()) continue;
      journey.message = messages++;
      const bool against =
          staged.backward ? journey.highest > journey.home : journey.lowest < journey.home;
      if (against) {
        throw GraphError("a value goes against the pipeline",
                         {.where = split.value(id).name, .found = to_string(staged.op.kind)});
      }
    }
  }
  return journeys;
}

// One stage's graph, phase by phase.
class StageBuilder {
 public:
  StageBuilder(const Graph& step, const StageSplit& split, const std::vector<Journey>& journeys,
               int stage, int micro_batches)
      : step_(step),
        split_(split),
        journeys_(journeys),
        stage_(stage),
        micro_batches_(micro_batches),
        messages_(std::ranges::max_element(journeys, {}, &Journey::message)->message + 1),
        shared_(split.values().size(), none),
        values_(micro_batches, std::vector<ValueId>(split.values().size(), none)),
        ops_(micro_batches, std::vector<std::vector<OpId>>(split.ops().size())) {}

  Graph run() {
    add_symbols();
    for (const PipelinePhase& phase :
         pipeline_phases(stage_, split_.stages(), micro_batches_, split_.has_backward())) {
      add_phase(phase);
    }
    for (std::vector<ValueId>& values : values_) {
      for (ValueId id : split_.outputs(stage_)) builder_.add_output(values[id]);
    }
    builder_.set_micro_batches(micro_batches_);
    builder_.set_keeps_bits(step_.keeps_bits());
    builder_.set_description(step_.description() + ", stage " + std::to_string(stage_ + 1) +
                             " of " + std::to_string(split_.stages()) + ", " +
                             std::to_string(micro_batches_) + " micro-batches");
    return builder_.finish();
  }

 private:
  void add_symbols() {
    for (int m = 0; m < micro_batches_; ++m) {
      symbols_.emplace_back();
      for (Symbol symbol : step_.symbols()) {
        const bool shared = m > 0 && symbol.kind == Symbol::Kind::local_experts;
        symbol.micro_batch = m;
        if (symbol.whole != none) symbol.whole = symbols_[m].at(symbol.whole);
        symbols_[m].push_back(shared ? symbols_[0][symbols_[m].size()]
                                     : builder_.add_symbol(symbol));
      }
    }
  }

  std::vector<OpId>& stands_for(size_t place) { return ops_[phase_.micro_batch][place]; }

  // The value in the micro-batch at hand; parameters and their gradients are those of all.
  ValueId value(ValueId id) {
    Value copy = split_.value(id);
    const bool shared = copy.kind == ValueKind::parameter || copy.kind == ValueKind::gradient;
    ValueId& place = shared ? shared_[id] : values_[phase_.micro_batch][id];
    if (place != none) return place;
    for (Dim& dim : copy.shape) {
      if (!dim.exact()) dim.symbol = symbols_[phase_.micro_batch].at(dim.symbol);
    }
    // What comes from another stage comes as a whole.
    copy.part_of =
        copy.part_of == none || journeys_[id].comes_to(stage_) ? none : value(copy.part_of);
    return place = builder_.add_value(copy);
  }

  std::vector<ValueId> values(std::span<const ValueId> ids) {
    std::vector<ValueId> mapped;
    for (ValueId id : ids) mapped.push_back(value(id));
    return mapped;
  }

  void add_phase(const PipelinePhase& phase) {
    phase_ = phase;
    begins_behind_ = ends_of_phase();
    begins_behind_.insert(begins_behind_.end(), older_weights_.begin(), older_weights_.end());
    older_weights_ = std::exchange(weights_, {});
    begin_ = builder_.op_count();
    followed_.clear();
    for (size_t place = 0; place < split_.ops().size(); ++place) {
      const StagedOp& staged = split_.ops()[place];
      if (staged.backward != phase.backward) continue;
      if (staged.stage == stage_) stands_for(place).push_back(copy(staged.op));
      for (ValueId id : staged.op.outputs) move(id, staged.op.attributes, place);
    }
  }

  OpId copy(const Op& op) {
    Attributes attributes = op.attributes;
    attributes.micro_batch = phase_.micro_batch;
    std::vector<OpId> order_after;
    for (int before : op.order_after) {
      const std::vector<OpId>& ops = stands_for(before);
      order_after.insert(order_after.end(), ops.begin(), ops.end());
    }
    const OpId id = add(op.kind, attributes, values(op.inputs), values(op.outputs),
                        std::move(order_after), !op.accumulates.empty());
    builder_.set_accumulates(id, values(op.accumulates));
    if (op.host_waits) builder_.set_host_waits(id);
    return id;
  }

  // Receives a value of another stage; sends it on. `place`: of the op that makes it.
  void move(ValueId id, const Attributes& made_by, size_t place) {
    const Journey& journey = journeys_[id];
    if (!journey.leaves()) return;
    Attributes attributes{.layer = made_by.layer, .micro_batch = phase_.micro_batch};
    attributes.stages = split_.stages();
    attributes.message = phase_.micro_batch * messages_ + journey.message;
    auto add_message = [&](OpKind kind, int peer, OpId& last) {
      attributes.peer = peer;
      const bool sends = kind == OpKind::send;
      std::vector<OpId> order_after;
      if (last != none) order_after.push_back(last);  // both ends go through them in one order
      const std::vector<ValueId> moved = {value(id)}, nothing;
      last = add(kind, attributes, sends ? moved : nothing, sends ? nothing : moved,
                 std::move(order_after));
      return last;
    };
    if (journey.comes_to(stage_)) {
      stands_for(place).push_back(
          add_message(OpKind::receive, journey.comes_from(stage_), last_receive_));
    }
    if (journey.goes_up(stage_)) add_message(OpKind::send, stage_ + 1, last_send_);
    if (journey.goes_down(stage_)) add_message(OpKind::send, stage_ - 1, last_send_);
  }

  // What a phase begins with comes after what the phase before it ended with, and after the weight
  // gradients of the one before that: those may wait so long, and fill gaps.
  OpId add(OpKind kind, const Attributes& attributes, std::vector<ValueId> inputs,
           std::vector<ValueId> outputs, std::vector<OpId> order_after, bool accumulates = false) {
    bool follows = false;
    auto follow = [&](OpId before) {
      if (before < begin_) return;
      follows = true;
      if (!accumulates) followed_.at(before - begin_) = true;
    };
    for (OpId before : order_after) follow(before);
    for (ValueId id : inputs) follow(builder_.value(id).producer);
    if (!follows) {
      order_after.insert(order_after.end(), begins_behind_.begin(), begins_behind_.end());
    }
    if (accumulates) weights_.push_back(builder_.op_count());
    followed_.push_back(accumulates);
    return builder_.add_op(kind, attributes, std::move(inputs), std::move(outputs),
                           std::move(order_after));
  }

  // But for weight gradients.
  std::vector<OpId> ends_of_phase() const {
    std::vector<OpId> ends;
    for (size_t i = 0; i < followed_.size(); ++i) {
      if (!followed_[i]) ends.push_back(begin_ + static_cast<OpId>(i));
    }
    return ends;
  }

  const Graph& step_;
  const StageSplit& split_;
  const std::vector<Journey>& journeys_;
  const int stage_, micro_batches_, messages_;
  GraphBuilder builder_;
  std::vector<std::vector<SymbolId>> symbols_;  // by micro-batch and symbol of the step
  std::vector<ValueId> shared_;                 // by value of the split, as the next
  std::vector<std::vector<ValueId>> values_;    // by micro-batch
  // By micro-batch and place in the split: the op, or what receives its outputs.
  std::vector<std::vector<std::vector<OpId>>> ops_;
  PipelinePhase phase_;                        // at hand
  OpId begin_ = 0;                             // its first op
  std::vector<bool> followed_;                 // by op of the phase
  std::vector<OpId> begins_behind_;            // what it begins with comes after these
  std::vector<OpId> weights_, older_weights_;  // weight gradients of it, and of the one before
  OpId last_send_ = none, last_receive_ = none;
};

}  // namespace

std::vector<int> even_stages(int layers, int stages) {
  if (stages < 1 || stages > layers) {
    throw UsageError("stages do not fit the layers", {.where = "pipeline stages",
                                                      .expected = "1 to " + std::to_string(layers),
                                                      .found = std::to_string(stages)});
  }
  std::vector<int> stage_of_layer;
  for (int stage = 0; stage < stages; ++stage) {
    stage_of_layer.resize(static_cast<size_t>((stage + 1) * layers / stages), stage);
  }
  return stage_of_layer;
}

std::vector<PipelinePhase> pipeline_phases(int stage, int stages, int micro_batches,
                                           bool backward) {
  const int ahead = backward ? std::min(micro_batches, stages - 1 - stage) : micro_batches;
  std::vector<PipelinePhase> phases;
  for (int m = 0; m < ahead; ++m) phases.push_back({m, false});
  if (!backward) return phases;
  for (int m = 0; m < micro_batches; ++m) {
    if (m + ahead < micro_batches) phases.push_back({m + ahead, false});
    phases.push_back({m, true});
  }
  return phases;
}

std::vector<Graph> pipeline_stages(const Graph& step, std::span<const int> stage_of_layer,
                                   int micro_batches) {
  require_for_rewrite(step.micro_batches() == 1, "pipeline stages", "one micro-batch",
                      std::to_string(step.micro_batches()));
  require_for_rewrite(micro_batches >= 1, "pipeline stages", "at least one micro-batch",
                      std::to_string(micro_batches));
  const StageSplit split(step, stage_of_layer);
  const std::vector<Journey> journeys = journeys_of(split);
  std::vector<Graph> graphs;
  for (int stage = 0; stage < split.stages(); ++stage) {
    graphs.push_back(StageBuilder(step, split, journeys, stage, micro_batches).run());
  }
  return graphs;
}

}  // namespace farskip
