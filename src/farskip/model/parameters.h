#pragma once

#include "farskip/model/config.h"

namespace farskip {

// Weights of one layer on one rank, in elements, by what splits them.
struct LayerParameters {
  double norms = 0;
  double attention = 0;   // projections, their biases, q/k norms, sinks; all blocks of the layer
  double router = 0;      // gate with its biases; 0 in a dense layer
  double shared = 0;      // shared experts and their gate
  double dense = 0;       // dense MLP, or those that LongCat has in every layer
  double one_expert = 0;  // one routed expert; 0 in a dense layer
};

// Layer from 1. With tensor parallelism attention is split by heads (a k/v head that more than one
// rank needs is on each of them), shared experts and dense MLPs by columns, rounded up; norms, the
// router and the compressed projections of latent attention are on every rank; experts are whole.
// Throws ConfigError: layer out of range, tensor_parallel < 1 or no divisor of the head count.
LayerParameters layer_parameters(const ModelConfig& config, int layer, int tensor_parallel = 1);

// Bytes of weights on the rank that holds most.
struct WeightBytes {
  double experts = 0;  // routed experts
  double other = 0;    // everything else
  double total() const { return experts + other; }
};

// Routed experts are spread over `expert_parallel` ranks, attention, shared experts and dense MLPs
// over `tensor_parallel`; embedding, head, routers and norms are on every rank.
// Throws ConfigError: expert_parallel not in 1..experts, tensor_parallel as layer_parameters,
// bytes_per_element not positive.
WeightBytes weight_bytes_per_rank(const ModelConfig& config, int expert_parallel,
                                  int tensor_parallel, double bytes_per_element);

}  // namespace farskip
