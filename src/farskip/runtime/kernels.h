#pragma once

#include "farskip/nn/attention.h"
#include "farskip/runtime/kernel.h"

namespace farskip {

// All ops of a step whose experts exchange tokens (ParallelForm::expert_all_to_all), forward and
// backward, by the functions of nn, on any device. The executor needs a RoutingState
// (routing_state.h) as its KernelState.
KernelTable step_kernels();

// The parts that step_kernels puts together: what the tokens' rank does, what moves between
// ranks, what the experts' rank does besides computing them, and gradients.
void add_routing_kernels(KernelTable& table);
void add_exchange_kernels(KernelTable& table);
void add_arrival_kernels(KernelTable& table);
void add_gradient_kernels(KernelTable& table);

// The weights of an attention_prepare op, in the order of its inputs.
AttentionWeights attention_weights(const AttentionConfig& config, Inputs weights);
// Of rows received per rank and local expert [ranks, experts], those of an op's chunk. Rows that
// lie by expert already come with how many there are of each [experts], as if of one rank.
at::Tensor counts_of_chunk(const KernelContext& context, const at::Tensor& counts);

}  // namespace farskip
