#include "farskip/graph/stage_split.h"

#include <algorithm>

#include "farskip/base/error.h"
#include "farskip/graph/differentiate.h"

namespace farskip {

StageSplit::StageSplit(const Graph& step, std::span<const int> stage_of_layer)
    : step_(step),
      stage_of_layer_(stage_of_layer),
      stages_(stage_of_layer.back() + 1),
      first_backward_(last_forward_op(step) + 1),
      has_backward_(first_backward_ < static_cast<OpId>(step.ops().size())),
      values_(step.values().begin(), step.values().end()),
      homes_(values_.size(), none),
      places_(step.ops().size()),
      first_router_(static_cast<size_t>(stages_), 0) {
  for (const Op& op : step.ops()) {
    if (op.kind != OpKind::router || op.attributes.again) continue;
    for (int stage = stage_for(op) + 1; stage < stages_; ++stage) {
      first_router_[stage] = std::max(first_router_[stage], op.attributes.router + 1);
    }
  }
  for (const Op& op : step.ops()) {
    if (std::ranges::all_of(op.inputs, [&](ValueId id) { return is_everywhere(id); })) {
      add_on_every_stage(op);
    } else if (op.kind == OpKind::sum) {
      add_sum(op);
    } else if (op.kind == OpKind::expert_loads) {
      add_expert_loads(op);
    } else {
      add(op, stage_for(op), op.inputs, op.outputs);
    }
  }
  check_gradients();
}

int StageSplit::stage_for(const Op& op) const {
  if (op.attributes.layer > 0) return stage_of_layer_[op.attributes.layer - 1];
  const bool first = op.kind == OpKind::embedding || op.kind == OpKind::embedding_gradient;
  return first ? 0 : stages_ - 1;
}

bool StageSplit::is_everywhere(ValueId id) const {
  const auto copy = copies_.lower_bound({id, 0});
  return step_.value(id).kind == ValueKind::input ||
         (copy != copies_.end() && copy->first.first == id);
}

ValueId StageSplit::local(ValueId id, int stage) const {
  const auto copy = copies_.find({id, stage});
  return copy == copies_.end() ? id : copy->second;
}

ValueId StageSplit::add_value(Value value) {
  value.id = static_cast<ValueId>(values_.size());
  values_.push_back(std::move(value));
  homes_.push_back(none);
  return values_.back().id;
}

void StageSplit::add(const Op& op, int stage, std::vector<ValueId> inputs,
                     std::vector<ValueId> outputs) {
  StagedOp staged{.op = op, .stage = stage, .backward = op.id >= first_backward_};
  for (ValueId& id : inputs) id = local(id, stage);
  for (ValueId id : outputs) homes_[id] = stage;
  staged.op.inputs = std::move(inputs);
  staged.op.outputs = std::move(outputs);
  staged.op.order_after.clear();
  for (OpId before : op.order_after) {
    staged.op.order_after.insert(staged.op.order_after.end(), places_[before].begin(),
                                 places_[before].end());
  }
  // Which row of the stage's own expert loads.
  if (op.kind == OpKind::router_loss) staged.op.attributes.router -= first_router_[stage];
  places_[op.id].push_back(static_cast<int>(ops_.size()));
  ops_.push_back(std::move(staged));
}

void StageSplit::add_on_every_stage(const Op& op) {
  for (int stage = 0; stage < stages_; ++stage) {
    const bool all_here = std::ranges::all_of(op.inputs, [&](ValueId id) {
      return step_.value(id).kind == ValueKind::input || copies_.count({id, stage}) != 0;
    });
    if (!all_here) continue;
    std::vector<ValueId> outputs;
    for (ValueId id : op.outputs) {
      Value copy = step_.value(id);
      // Loads of a stage's routers stay that many when they are summed over ranks.
      if (op.kind == OpKind::all_reduce) copy.shape = values_[local(op.inputs[0], stage)].shape;
      outputs.push_back(copies_[{id, stage}] = add_value(std::move(copy)));
    }
    add(op, stage, op.inputs, outputs);
  }
}

void StageSplit::add_expert_loads(const Op& op) {
  for (int stage = 0; stage < stages_; ++stage) {
    std::vector<ValueId> chosen;
    std::ranges::copy_if(op.inputs, std::back_inserter(chosen),
                         [&](ValueId id) { return homes_[id] == stage; });
    if (chosen.empty()) continue;
    Value loads = step_.value(op.outputs[0]);
    loads.shape[0].size = static_cast<int64_t>(chosen.size());
    const ValueId own = copies_[{op.outputs[0], stage}] = add_value(std::move(loads));
    add(op, stage, chosen, {own});
  }
}

// Left to right, so the bits are those of one sum: the terms of a stage are added to what the ones
// before them came to, where they are.
void StageSplit::add_sum(const Op& op) {
  std::vector<ValueId> terms;
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    const int stage = homes_[op.inputs[i]];
    terms.push_back(op.inputs[i]);
    const bool last = i + 1 == op.inputs.size();
    if (!last && homes_[op.inputs[i + 1]] == stage) continue;
    if (!last && terms.size() == 1) continue;
    Value partial = step_.value(op.outputs[0]);
    const ValueId sum = last ? op.outputs[0] : add_value(std::move(partial));
    add(op, stage, terms, {sum});
    terms = {sum};
  }
}

void StageSplit::check_gradients() const {
  std::map<ValueId, int> writers;
  for (const StagedOp& staged : ops_) {
    for (ValueId id : staged.op.accumulates) {
      const auto [found, first] = writers.try_emplace(id, staged.stage);
      if (found->second == staged.stage) continue;
      throw UnsupportedError(
          "several stages train one parameter",
          {.where = values_[id].name,
           .expected = "each parameter on one stage",
           .found =
               "stages " + std::to_string(found->second) + " and " + std::to_string(staged.stage),
           .hint = "a model whose head is its embedding can not be cut into stages"});
    }
  }
}

std::vector<ValueId> StageSplit::outputs(int stage) const {
  std::vector<ValueId> outputs;
  for (ValueId id : step_.outputs()) {
    const ValueId here = local(id, stage);
    if (homes_[here] == stage) outputs.push_back(here);
  }
  return outputs;
}

}  // namespace farskip
