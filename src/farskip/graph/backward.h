#pragma once

#include <map>
#include <string>
#include <vector>

#include "farskip/graph/copier.h"

namespace farskip {

// What routers' own losses are computed from besides their logits.
struct RouterLossInputs {
  ValueId label_count = none;
  ValueId expert_loads = none;  // of all ranks; none: not counted
};

// The backward step as it grows: which gradients are known so far, and of what they are sums. Ops
// and values are those of the new graph.
class Backward {
 public:
  Backward(GraphBuilder& builder, DType gradients, const RouterLossInputs& router_loss_inputs)
      : builder_(builder), gradients_(gradients), router_loss_inputs_(router_loss_inputs) {}

  GraphBuilder& builder() { return builder_; }
  const RouterLossInputs& router_loss_inputs() const { return router_loss_inputs_; }

  // `gradient` is one term of the gradient by `value`. Values that nothing is to be learned of
  // (inputs, integers) may be given one; it is never asked for.
  void contribute(ValueId value, ValueId gradient) { terms_[value].push_back(gradient); }
  // The sum of the terms so far, or none. `layer`: of the op that is asking.
  ValueId gradient_of(ValueId value, int layer);

  // A new activation shaped like another one.
  ValueId add_like(ValueId value, const std::string& name);
  // A new activation with as many rows as `value` and so many columns.
  ValueId add_rows(ValueId rows_of, const std::string& name, int64_t columns, DType dtype);

  // Adds an op that adds to the gradients of these parameters.
  void add_weight_gradient(OpKind kind, const Attributes& attributes,
                           const std::vector<ValueId>& inputs,
                           const std::vector<ValueId>& parameters);

  // A router's own losses, fp32 [router_loss_count], and their sum over routers so far: none
  // without any.
  void add_router_losses(ValueId losses) { router_losses_.push_back(losses); }
  ValueId sum_router_losses();

 private:
  ValueId accumulator(ValueId parameter);

  GraphBuilder& builder_;
  const DType gradients_;
  const RouterLossInputs router_loss_inputs_;
  std::vector<ValueId> router_losses_;
  std::map<ValueId, std::vector<ValueId>> terms_;
  std::map<ValueId, ValueId> accumulators_;  // by parameter
};

// What a forward op of the new graph leaves behind for its gradient: values without a producer that
// become its last outputs. `op` is of the forward graph.
std::vector<ValueId> add_saved(GraphBuilder& builder, const Graph& forward, const Op& op);

// Adds the gradient ops of a forward op, `op` of the new graph whose last `saved` outputs add_saved
// made. An op whose outputs have no gradient adds nothing. Throws UnsupportedError for an op that
// has no gradient.
void add_gradients(Backward& backward, const Op& op, size_t saved);

}  // namespace farskip
