#include <utility>

#include "farskip/nn/attention_gradient.h"
#include "farskip/nn/attention_prepare_gradient.h"
#include "farskip/nn/experts.h"
#include "farskip/nn/experts_gradient.h"
#include "farskip/nn/linear.h"
#include "farskip/nn/loss.h"
#include "farskip/nn/mlp_gradient.h"
#include "farskip/nn/norm_gradient.h"
#include "farskip/nn/permutation_gradient.h"
#include "farskip/nn/router_gradient.h"
#include "farskip/nn/router_losses.h"
#include "farskip/runtime/kernels.h"

namespace farskip {
namespace {

// Takes inputs, or gives outputs, one after the other.
template <typename Tensors>
class Cursor {
 public:
  explicit Cursor(Tensors tensors) : tensors_(tensors) {}
  auto& next() { return tensors_[next_++]; }
  Tensors rest() const { return tensors_.subspan(next_); }

 private:
  Tensors tensors_;
  size_t next_ = 0;
};

void run_loss_gradient(const KernelContext&, Inputs in, Outputs out) {
  cross_entropy_gradient_out(out[0], in[0], in[1], in[2], in[3]);
}

void run_linear_gradient(const KernelContext&, Inputs in, Outputs out) {
  linear_out(out[0], in[0], in[1].t());
}

void run_linear_weight_gradient(const KernelContext& context, Inputs in, Outputs) {
  // A router's logits may be computed in more bits than what it reads.
  context.gradients[0].take_product(in[0], in[1].to(in[0].scalar_type()));
}

void run_norm_gradient(const KernelContext& context, Inputs in, Outputs out) {
  rms_norm_gradient_out(out[0], in[0], in[1], in[2], context.model.norm_eps);
}

void run_norm_weight_gradient(const KernelContext& context, Inputs in, Outputs) {
  rms_norm_weight_gradient(context.gradients[0], in[0], in[1], context.model.norm_eps);
}

void run_attention_core_gradient(const KernelContext& context, Inputs in, Outputs out) {
  AttentionInputs made = attention_core_gradient(in[0], {in[1], in[2], in[3]}, {in[4], in[5]},
                                                 context.lengths, context.model.softmax_scale());
  deliver(out[0], std::move(made.q));
  deliver(out[1], std::move(made.k));
  deliver(out[2], std::move(made.v));
}

bool has_norms(const AttentionConfig& config) {
  return config.kind == AttentionConfig::Kind::latent ||
         config.qk_norm != AttentionConfig::QkNorm::none;
}

// in: d q, k and v, cosines, sines, [first product,] weights.
void run_attention_prepare_gradient(const KernelContext& context, Inputs in, Outputs out) {
  const AttentionConfig& config = context.model.attention;
  const size_t saved = has_norms(config) ? 1 : 0;
  AttentionPrepareGradient made = attention_prepare_gradient(
      context.model, attention_weights(config, in.subspan(5 + saved)), {in[0], in[1], in[2]},
      {in[3], in[4]}, saved == 1 ? in[5] : at::Tensor());
  Cursor next(out);
  for (at::Tensor* tensor : {&made.x, &made.first, &made.q_b, &made.kv_b, &made.normed}) {
    if (tensor->defined()) deliver(next.next(), std::move(*tensor));
  }
}

// in: rows, [first product,] deltas, norms.
void run_attention_prepare_weight_gradient(const KernelContext& context, Inputs in, Outputs) {
  const AttentionConfig& config = context.model.attention;
  Cursor next_in(in);
  Cursor next(context.gradients);
  const at::Tensor x = next_in.next();
  const at::Tensor first = has_norms(config) ? next_in.next() : at::Tensor();
  AttentionPrepareGradient deltas{.first = next_in.next()};
  AttentionWeights norms;
  AttentionWeightGradients gradients;
  if (config.kind == AttentionConfig::Kind::latent) {
    const bool q_lora = config.q_lora_rank > 0;
    if (q_lora) deltas.q_b = next_in.next();
    deltas.kv_b = next_in.next();
    deltas.normed = next_in.next();
    if (q_lora) norms.q_a_norm = next_in.next();
    norms.kv_a_norm = next_in.next();
    gradients.q_kv_a = next.next();
    if (q_lora) {
      gradients.q_a_norm = next.next();
      gradients.q_b = next.next();
    }
    gradients.kv_a_norm = next.next();
    gradients.kv_b = next.next();
  } else {
    gradients.qkv = next.next();
    if (has_norms(config)) {
      deltas.normed = next_in.next();
      gradients.q_norm = next.next();
      gradients.k_norm = next.next();
    }
  }
  attention_prepare_weight_gradient(context.model, gradients, norms, x, first, deltas);
}

void deliver_mlp(Outputs out, MlpGradient made) {
  deliver(out[0], std::move(made.rows));
  deliver(out[1], std::move(made.deltas));
  deliver(out[2], std::move(made.activated));
}

void run_mlp_gradient(const KernelContext&, Inputs in, Outputs out) {
  deliver_mlp(out, swiglu_gradient(in[0], in[1], in[2], in[3]));
}

void run_mlp_products(const KernelContext&, Inputs in, Outputs out) {
  linear_out(out[0], in[0], in[1]);
}

// in: received rows, rows received per rank and local expert, gate and up of the chunk.
void run_experts_products(const KernelContext& context, Inputs in, Outputs out) {
  deliver(out[0], experts_products(in[0], counts_of_chunk(context, in[1]), in[2]));
}

void run_experts_gradient(const KernelContext& context, Inputs in, Outputs out) {
  deliver_mlp(out, experts_gradient(in[0], in[1], counts_of_chunk(context, in[2]), in[3], in[4]));
}

void run_experts_weight_gradient(const KernelContext& context, Inputs in, Outputs) {
  experts_weight_gradient(context.gradients[0], context.gradients[1], in[0], in[1], in[2], in[3],
                          counts_of_chunk(context, in[4]));
}

// in: logits, chosen experts, label count [, loads of all routers].
void run_router_loss(const KernelContext& context, Inputs in, Outputs out) {
  const Attributes& a = context.op.attributes;
  const at::Tensor loads = in.size() > 3 ? in[3].select(0, a.router) : at::Tensor();
  RouterLossGradient made = router_losses(context.model.router, a.router_losses,
                                          {in[0], in[1], loads}, in[2], context.lengths);
  deliver(out[0], std::move(made.d_logits));
  deliver(out[1], std::move(made.losses));
}

// in: d routing weights, chosen experts, logits, weight [, what else logits' gradient is made of].
void run_router_gradient(const KernelContext& context, Inputs in, Outputs out) {
  const RouterConfig& config = context.model.router;
  at::Tensor d_logits = routing_weights_to_logits_gradient(config, in[0], in[1], in[2]);
  if (in.size() > 4) d_logits += in[4];
  deliver(out[0], router_input_gradient(config, d_logits, in[3], in[3].scalar_type()));
  deliver(out[1], std::move(d_logits));
}

void run_unpermute_gradient(const KernelContext&, Inputs in, Outputs out) {
  unpermute_gradient_out(out[0], in[0], in[1], in[2]);
}

void run_routing_weights_gradient(const KernelContext& context, Inputs in, Outputs out) {
  deliver(out[0], routing_weights_gradient(in[0], in[1], in[2], context.op.attributes.top_k));
}

void run_permute_gradient(const KernelContext& context, Inputs in, Outputs out) {
  deliver(out[0], permute_gradient(in[0], in[1], context.op.attributes.top_k));
}

void run_embedding_gradient(const KernelContext& context, Inputs in, Outputs) {
  embedding_gradient(context.gradients[0], in[0], in[1]);
}

}  // namespace

void add_gradient_kernels(KernelTable& table) {
  table.add(OpKind::loss_gradient, recordable({.kernel = run_loss_gradient}));
  table.add(OpKind::linear_gradient, recordable({.kernel = run_linear_gradient}));
  table.add(OpKind::norm_gradient, recordable({.kernel = run_norm_gradient}));
  table.add(OpKind::attention_prepare_gradient, recordable(making(run_attention_prepare_gradient)));
  table.add(OpKind::attention_core_gradient, recordable(making(run_attention_core_gradient)));
  table.add(OpKind::mlp_gradient, recordable(making(run_mlp_gradient)));
  table.add(OpKind::mlp_products, recordable({.kernel = run_mlp_products}));
  table.add(OpKind::experts_products, recordable(making(run_experts_products)));
  table.add(OpKind::experts_gradient, recordable(making(run_experts_gradient)));
  table.add(OpKind::router_loss, recordable(making(run_router_loss)));
  table.add(OpKind::router_gradient, recordable(making(run_router_gradient)));
  table.add(OpKind::unpermute_gradient, recordable({.kernel = run_unpermute_gradient}));
  table.add(OpKind::routing_weights_gradient, recordable(making(run_routing_weights_gradient)));
  table.add(OpKind::permute_gradient, recordable(making(run_permute_gradient)));
  table.add(OpKind::linear_weight_gradient, run_linear_weight_gradient);
  table.add(OpKind::norm_weight_gradient, run_norm_weight_gradient);
  table.add(OpKind::attention_prepare_weight_gradient, run_attention_prepare_weight_gradient);
  table.add(OpKind::experts_weight_gradient, run_experts_weight_gradient);
  table.add(OpKind::embedding_gradient, run_embedding_gradient);
}

}  // namespace farskip
