#pragma once

#include <map>
#include <span>
#include <utility>
#include <vector>

#include "farskip/graph/graph.h"

namespace farskip {

// An op of a step, on the stage that runs it. Inputs, outputs and accumulates are values of the
// StageSplit; order_after are places in StageSplit::ops.
struct StagedOp {
  Op op;
  int stage = 0;
  bool backward = false;
};

// A step with every op given to one pipeline stage. Ops of a layer are its stage's; a sum is made
// where its terms are, one run of terms after the other; what depends on inputs of the step alone
// is computed on every stage that reads it; expert loads are counted by the stage of their routers.
class StageSplit {
 public:
  // Throws as pipeline_stages.
  StageSplit(const Graph& step, std::span<const int> stage_of_layer);

  int stages() const { return stages_; }
  bool has_backward() const { return has_backward_; }
  std::span<const StagedOp> ops() const { return ops_; }  // producers come before consumers
  const Value& value(ValueId id) const { return values_.at(id); }
  std::span<const Value> values() const { return values_; }
  // The stage that makes an activation; none for other values.
  int home(ValueId id) const { return homes_.at(id); }
  // Outputs of the step that this stage makes.
  std::vector<ValueId> outputs(int stage) const;

 private:
  int stage_for(const Op& op) const;
  bool is_everywhere(ValueId id) const;
  ValueId local(ValueId id, int stage) const;
  ValueId add_value(Value value);
  void add(const Op& op, int stage, std::vector<ValueId> inputs, std::vector<ValueId> outputs);
  void add_on_every_stage(const Op& op);
  void add_expert_loads(const Op& op);
  void add_sum(const Op& op);
  void check_gradients() const;

  const Graph& step_;
  const std::span<const int> stage_of_layer_;
  const int stages_;
  const OpId first_backward_;
  const bool has_backward_;
  std::vector<StagedOp> ops_;
  std::vector<Value> values_;
  std::vector<int> homes_;
  // What several stages make, each for itself: by value of the step and stage.
  std::map<std::pair<ValueId, int>, ValueId> copies_;
  std::vector<std::vector<int>> places_;  // in ops_, by op of the step
  std::vector<int> first_router_;         // by stage: how many there are on the stages before
};

}  // namespace farskip
