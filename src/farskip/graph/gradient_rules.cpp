#include <algorithm>
#include <span>
#include <string_view>

#include "farskip/base/error.h"
#include "farskip/graph/backward.h"
#include "farskip/graph/step_outputs.h"

namespace farskip {
namespace {

bool is_norm(const Value& parameter) {
  return parameter.kind == ValueKind::parameter && parameter.name.ends_with("_norm");
}

// The gradient ops of one forward op.
class Rule {
 public:
  Rule(Backward& backward, const Op& op, size_t saved)
      : backward_(backward),
        builder_(backward.builder()),
        op_(op),
        at_(op.attributes),
        in_(op.inputs),
        out_(op.outputs.begin(), op.outputs.end() - saved),
        saved_(op.outputs.end() - saved, op.outputs.end()) {}

  void add() {
    if (op_.kind == OpKind::loss) return loss();
    bool any = false;
    for (ValueId id : out_) {
      d_.push_back(backward_.gradient_of(id, at_.layer));
      any |= d_.back() != none;
    }
    if (any) add_behind_gradients();
  }

 private:
  void add_behind_gradients() {
    switch (op_.kind) {
      case OpKind::embedding:
        return weights(OpKind::embedding_gradient, {d_[0], in_[0]}, {in_[1]});
      case OpKind::sum:
        for (ValueId term : in_) backward_.contribute(term, d_[0]);
        return;
      case OpKind::norm:
      case OpKind::final_norm:
        return norm();
      case OpKind::attention_prepare:
        return attention_prepare();
      case OpKind::attention_core:
        return attention_core();
      case OpKind::output_projection:
      case OpKind::head:
        return linear();
      case OpKind::shared_experts:
      case OpKind::dense_mlp:
        return mlp();
      case OpKind::router:
        return router();
      case OpKind::permute:
        return permute();
      case OpKind::dispatch:
        return exchange(OpKind::dispatch_gradient, {1, sent_rows()});
      case OpKind::arrange:  // only unpacks
        return backward_.contribute(in_[1], d_[0]);
      case OpKind::experts:
        return experts();
      case OpKind::combine:
        return exchange(OpKind::combine_gradient, builder_.value(in_[0]).shape[0]);
      case OpKind::unpermute:
        return unpermute();
      default:
        throw UnsupportedError("this op has no gradient", {.where = to_string(op_.kind)});
    }
  }

  // An op that makes the gradient by `value`, and then `others`.
  void input_gradient(OpKind kind, std::vector<ValueId> inputs, ValueId value,
                      std::vector<ValueId> others = {}) {
    const ValueId gradient = backward_.add_like(value, "gradient");
    others.insert(others.begin(), gradient);
    builder_.add_op(kind, at_, std::move(inputs), std::move(others));
    backward_.contribute(value, gradient);
  }

  void weights(OpKind kind, const std::vector<ValueId>& inputs,
               const std::vector<ValueId>& parameters) {
    backward_.add_weight_gradient(kind, at_, inputs, parameters);
  }

  void loss() {
    input_gradient(OpKind::loss_gradient, {in_[0], in_[1], in_[2], saved_[0]}, in_[0]);
  }

  void linear() {
    input_gradient(OpKind::linear_gradient, {d_[0], in_[1]}, in_[0]);
    weights(OpKind::linear_weight_gradient, {d_[0], in_[0]}, {in_[1]});
  }

  void norm() {
    input_gradient(OpKind::norm_gradient, {d_[0], in_[0], in_[1]}, in_[0]);
    weights(OpKind::norm_weight_gradient, {d_[0], in_[0]}, {in_[1]});
  }

  void attention_core() {
    const ValueId q = in_[0], k = in_[1], v = in_[2];
    const std::vector<ValueId> d = {backward_.add_like(q, "gradient of q"),
                                    backward_.add_like(k, "gradient of k"),
                                    backward_.add_like(v, "gradient of v")};
    builder_.add_op(OpKind::attention_core_gradient, at_, {d_[0], q, k, v, out_[0], saved_[0]}, d);
    for (size_t i = 0; i < d.size(); ++i) backward_.contribute(in_[i], d[i]);
  }

  // in: rows, cosines, sines, weights.
  void attention_prepare() {
    const std::vector<ValueId> parameters(in_.begin() + 3, in_.end());
    std::vector<ValueId> inputs = {d_[0], d_[1], d_[2], in_[1], in_[2]};
    inputs.insert(inputs.end(), saved_.begin(), saved_.end());
    inputs.insert(inputs.end(), parameters.begin(), parameters.end());
    const std::vector<ValueId> deltas = add_attention_deltas(parameters);
    input_gradient(OpKind::attention_prepare_gradient, inputs, in_[0], deltas);

    std::vector<ValueId> for_weights = {in_[0]};
    for_weights.insert(for_weights.end(), saved_.begin(), saved_.end());
    for_weights.insert(for_weights.end(), deltas.begin(), deltas.end());
    for (ValueId id : parameters) {
      if (is_norm(builder_.value(id))) for_weights.push_back(id);
    }
    weights(OpKind::attention_prepare_weight_gradient, for_weights, parameters);
  }

  std::vector<ValueId> add_attention_deltas(const std::vector<ValueId>& parameters) {
    const DType dtype = builder_.value(in_[0]).dtype;
    std::vector<ValueId> deltas;
    int64_t normed = 0;
    for (ValueId id : parameters) {
      const Value& parameter = builder_.value(id);
      if (!is_norm(parameter)) {
        const int64_t width = parameter.shape[0].size;
        deltas.push_back(backward_.add_rows(in_[0], "delta", width, dtype));
      } else if (parameter.name.ends_with("_a_norm")) {
        normed += builder_.value(id).shape[0].size;
      } else {  // of q or of k, which may be normed head by head
        const Value& heads = builder_.value(out_[parameter.name.ends_with(".q_norm") ? 0 : 1]);
        normed += heads.shape[1].size * heads.shape[2].size;
      }
    }
    if (normed > 0) deltas.push_back(backward_.add_rows(in_[0], "delta", normed, dtype));
    return deltas;
  }

  // `saved_` are the products with gate and up.
  std::vector<ValueId> add_mlp_deltas() {
    const Value products = builder_.value(saved_[0]);  // a copy: adding values moves the builder's
    const int64_t width = products.shape[1].size / 2;
    return {backward_.add_like(saved_[0], "delta"),
            backward_.add_rows(saved_[0], "activated", width, products.dtype)};
  }

  void mlp() {
    const std::vector<ValueId> deltas = add_mlp_deltas();
    input_gradient(OpKind::mlp_gradient, {d_[0], saved_[0], in_[1], in_[2]}, in_[0], deltas);
    weights(OpKind::linear_weight_gradient, {deltas[0], in_[0]}, {in_[1]});
    weights(OpKind::linear_weight_gradient, {d_[0], deltas[1]}, {in_[2]});
  }

  // in: rows, counts, gate and up, down.
  void experts() {
    const std::vector<ValueId> deltas = add_mlp_deltas();
    input_gradient(OpKind::experts_gradient, {d_[0], saved_[0], in_[1], in_[2], in_[3]}, in_[0],
                   deltas);
    weights(OpKind::experts_weight_gradient, {in_[0], deltas[0], deltas[1], d_[0], in_[1]},
            {in_[2], in_[3]});
  }

  // Weights that do not come from the router are constants.
  void router() {
    if (at_.routing != RoutingMode::model) return;
    const ValueId delta = backward_.add_like(saved_[0], "delta");
    std::vector<ValueId> inputs = {d_[1], out_[0], saved_[0], in_[1]};
    if (at_.router_losses.any()) inputs.push_back(add_router_loss());
    input_gradient(OpKind::router_gradient, inputs, in_[0], {delta});
    weights(OpKind::linear_weight_gradient, {delta, in_[0]}, {in_[1]});
  }

  // What the router's own losses add to the gradient by its logits: known long before the rest.
  ValueId add_router_loss() {
    const RouterLossInputs& known = backward_.router_loss_inputs();
    std::vector<ValueId> inputs = {saved_[0], out_[0], known.label_count};
    if (at_.router_losses.balance != 0) inputs.push_back(known.expert_loads);
    const ValueId gradient = backward_.add_like(saved_[0], "gradient");
    const ValueId losses = builder_.add_value({.name = step_outputs::router_losses,
                                               .dtype = DType::float32,
                                               .shape = {{router_loss_count}}});
    builder_.add_op(OpKind::router_loss, at_, inputs, {gradient, losses});
    backward_.add_router_losses(losses);
    return gradient;
  }

  // in: rows, slots, counts. The plan made the slots, and their inverse.
  void permute() {
    const Op& plan = builder_.op(builder_.value(in_[1]).producer);
    input_gradient(OpKind::permute_gradient, {d_[0], plan.outputs.at(1)}, in_[0]);
  }

  // How many rows this rank dispatched: known by now, so that they can be told apart by chunk.
  SymbolId sent_rows() const {
    const auto found = std::ranges::find_if(builder_.symbols(), [&](const Symbol& symbol) {
      return symbol.kind == Symbol::Kind::sent_rows && symbol.layer == at_.layer;
    });
    return static_cast<SymbolId>(found - builder_.symbols().begin());
  }

  // Rows go back as they came, but for their form: packets are for the way there.
  void exchange(OpKind kind, Dim rows) {
    const Value& d = builder_.value(d_[0]);
    Attributes attributes = at_;
    attributes.wire = d.dtype;
    const ValueId gradient =
        builder_.add_value({.name = "gradient", .dtype = d.dtype, .shape = {rows, d.shape.back()}});
    builder_.add_op(kind, attributes, {d_[0], in_[1], in_[2]}, {gradient});
    backward_.contribute(in_[0], gradient);
  }

  // in: rows, inverse order, weights. Communication waits for the rows, nothing for the weights.
  void unpermute() {
    input_gradient(OpKind::unpermute_gradient, {d_[0], in_[1], in_[2]}, in_[0]);
    const ValueId weights = backward_.add_like(in_[2], "gradient");
    builder_.add_op(OpKind::routing_weights_gradient, at_, {d_[0], in_[0], in_[1]}, {weights});
    backward_.contribute(in_[2], weights);
  }

  Backward& backward_;
  GraphBuilder& builder_;
  const Op op_;  // a copy: adding ops moves the builder's
  const Attributes at_;
  const std::vector<ValueId> in_, out_, saved_;
  std::vector<ValueId> d_;  // gradients by out_
};

}  // namespace

std::vector<ValueId> add_saved(GraphBuilder& builder, const Graph& forward, const Op& op) {
  auto rows = [&](const char* name, int64_t columns, DType dtype) {
    const Dim rows = forward.value(op.outputs.at(0)).shape.at(0);
    return std::vector{
        builder.add_value({.name = name, .dtype = dtype, .shape = {rows, {columns}}})};
  };
  auto column_of = [&](size_t input, size_t dim) {
    return forward.value(op.inputs.at(input)).shape.at(dim).size;
  };
  const DType dtype = forward.value(op.outputs.at(0)).dtype;
  switch (op.kind) {
    case OpKind::attention_prepare:
      if (std::ranges::none_of(op.inputs, [&](ValueId id) { return is_norm(forward.value(id)); })) {
        return {};
      }
      return rows("first product", column_of(3, 0), dtype);
    case OpKind::attention_core:
      return rows("log-sum-exp", op.attributes.heads, DType::float32);
    case OpKind::shared_experts:
    case OpKind::dense_mlp:
      return rows("gate and up", column_of(1, 0), dtype);
    case OpKind::experts:
      return rows("gate and up", column_of(2, 1), dtype);
    case OpKind::router:
      if (op.attributes.routing != RoutingMode::model) return {};
      return rows("router logits", column_of(1, 0), DType::float32);
    case OpKind::loss: {
      const Dim tokens = forward.value(op.inputs.at(0)).shape.at(0);
      return {
          builder.add_value({.name = "log-sum-exp", .dtype = DType::float32, .shape = {tokens}})};
    }
    default:
      return {};
  }
}

void add_gradients(Backward& backward, const Op& op, size_t saved) {
  Rule(backward, op, saved).add();
}

}  // namespace farskip
