#include "farskip/nn/router_gradient.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros_like.h>

#include "farskip/nn/check.h"

namespace farskip {
namespace {

using Scoring = RouterConfig::Scoring;

// The gradient of y = softmax(x) over the last dimension by x.
at::Tensor softmax_gradient(const at::Tensor& d_y, const at::Tensor& y) {
  return y * (d_y - (d_y * y).sum(-1, /*keepdim=*/true));
}

}  // namespace

at::Tensor routing_weights_to_logits_gradient(const RouterConfig& config,
                                              const at::Tensor& d_weights,
                                              const at::Tensor& experts, const at::Tensor& logits) {
  require_shape(logits, {-1, config.experts}, "router logits");
  require_dtype(logits, at::kFloat, "router logits");
  require_shape(experts, {logits.size(0), config.top_k}, "expert ids");
  require_shape(d_weights, experts.sizes(), "routing weights gradient");
  require_dtype(d_weights, at::kFloat, "routing weights gradient");
  const at::Tensor chosen_logits = logits.gather(1, experts);
  at::Tensor scores, all_scores;  // of the chosen experts; of all, where they depend on all
  switch (config.scoring) {
    case Scoring::softmax:
      all_scores = at::softmax(logits, -1);
      scores = all_scores.gather(1, experts);
      break;
    case Scoring::sigmoid:
      scores = at::sigmoid(chosen_logits);
      break;
    case Scoring::softmax_of_chosen:
      scores = at::softmax(chosen_logits, -1);
      break;
  }
  at::Tensor d = d_weights * config.scale;
  if (config.normalize) {
    const at::Tensor sum = scores.sum(1, /*keepdim=*/true) + config.normalize_epsilon;
    d = (d - (d * scores).sum(1, /*keepdim=*/true) / sum) / sum;
  }
  const at::Tensor none = at::zeros_like(logits);
  switch (config.scoring) {
    case Scoring::softmax:
      return softmax_gradient(none.scatter(1, experts, d), all_scores);
    case Scoring::sigmoid:
      return none.scatter(1, experts, d * scores * (1 - scores));
    case Scoring::softmax_of_chosen:
      return none.scatter(1, experts, softmax_gradient(d, scores));
  }
  return none;
}

at::Tensor router_input_gradient(const RouterConfig& config, const at::Tensor& d_logits,
                                 const at::Tensor& weight, at::ScalarType dtype) {
  const at::ScalarType type = config.fp32 ? at::kFloat : weight.scalar_type();
  return at::mm(d_logits.to(type), weight.to(type)).to(dtype);
}

}  // namespace farskip
