#pragma once

#include <ATen/core/Tensor.h>

#include <span>

#include "farskip/model/config.h"

namespace farskip {

// Which experts each token goes to, and what their outputs are weighted with.
struct Routing {
  at::Tensor experts;  // int64 [T, k], distinct, ascending expert id in each row
  at::Tensor weights;  // fp32 [T, k]
};

// logits = x weight^T, fp32 [T, experts]: computed in fp32 if the config says so, in x's dtype
// otherwise. x [T, H], weight [experts, H]. Throws Error if shapes do not fit.
at::Tensor router_logits(const RouterConfig& config, const at::Tensor& x, const at::Tensor& weight);

// Scores, limits to groups, chooses the top k (the lower id wins a tie) and weighs, all in fp32.
// `logits` fp32 [T, experts]; `correction_bias` fp32 [experts], or undefined if the config has
// none: it is added for choosing groups and experts and takes no part in the weights. On the CPU
// each token is computed alone, so its bits do not depend on the tokens around it.
// Throws ConfigError if the config contradicts itself (top_k of more experts than there are or than
// the kept groups hold), UnsupportedError for zero experts and logit biases, Error for shapes.
Routing choose_experts(const RouterConfig& config, const at::Tensor& logits,
                       const at::Tensor& correction_bias);

// choose_experts(router_logits(...)).
Routing route(const RouterConfig& config, const at::Tensor& x, const at::Tensor& weight,
              const at::Tensor& correction_bias);

// Counts the tokens of each expert: `experts`, int64 [T, k] of each of several routers, of one or
// more parts of their tokens in turn, into `loads` int64 [routers, experts]. Ids must be in range.
void expert_loads_out(const at::Tensor& loads, std::span<const at::Tensor> experts);

// Routing without a router, for measuring: T * k slots dealt to the experts in turn, starting at
// `offset`, so that their loads differ by at most one, a token's experts are distinct and lie far
// apart (on different ranks under a contiguous placement), and every weight is 1 / k. CPU tensors.
// Throws ConfigError unless 1 <= top_k <= experts and tokens, offset >= 0.
Routing balanced_routing(int64_t tokens, int64_t experts, int64_t top_k, int64_t offset);

}  // namespace farskip
