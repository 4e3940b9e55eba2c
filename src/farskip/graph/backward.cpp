#include "farskip/graph/backward.h"

#include <algorithm>
#include <utility>

#include "farskip/graph/step_outputs.h"

namespace farskip {

ValueId Backward::gradient_of(ValueId value, int layer) {
  std::vector<ValueId>& terms = terms_[value];
  if (terms.empty()) return none;
  if (terms.size() > 1) {
    const ValueId sum = add_like(terms[0], "gradient");
    builder_.add_op(OpKind::sum, {.layer = layer}, terms, {sum});
    terms = {sum};
  }
  return terms[0];
}

ValueId Backward::add_like(ValueId value, const std::string& name) {
  const Value& like = builder_.value(value);
  return builder_.add_value({.name = name, .dtype = like.dtype, .shape = like.shape});
}

ValueId Backward::add_rows(ValueId rows_of, const std::string& name, int64_t columns, DType dtype) {
  const Dim rows = builder_.value(rows_of).shape.at(0);
  return builder_.add_value({.name = name, .dtype = dtype, .shape = {rows, {columns}}});
}

void Backward::add_weight_gradient(OpKind kind, const Attributes& attributes,
                                   const std::vector<ValueId>& inputs,
                                   const std::vector<ValueId>& parameters) {
  std::vector<ValueId> gradients;
  for (ValueId id : parameters) gradients.push_back(accumulator(id));
  builder_.set_accumulates(builder_.add_op(kind, attributes, inputs, {}), gradients);
}

ValueId Backward::sum_router_losses() {
  if (router_losses_.size() < 2) return router_losses_.empty() ? none : router_losses_[0];
  const ValueId sum = add_like(router_losses_[0], step_outputs::router_losses);
  builder_.add_op(OpKind::sum, {}, router_losses_, {sum});
  return sum;
}

ValueId Backward::accumulator(ValueId parameter) {
  const auto [found, first] = accumulators_.try_emplace(parameter, none);
  if (first) {
    Value gradient = builder_.value(parameter);
    gradient.kind = ValueKind::gradient;
    gradient.dtype = gradients_;
    found->second = builder_.add_value(gradient);
  }
  return found->second;
}

}  // namespace farskip
