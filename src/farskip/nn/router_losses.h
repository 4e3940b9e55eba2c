#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "farskip/model/config.h"
#include "farskip/model/router_losses.h"

namespace farskip {

// What a router made of a rank's T tokens, all on one device.
struct RoutedTokens {
  at::Tensor logits;   // fp32 [T, experts]
  at::Tensor experts;  // int64 [T, k], the chosen ones
  at::Tensor loads;    // int64 [experts], tokens of each over all ranks; needed for a balance loss
};

struct RouterLossGradient {
  at::Tensor d_logits;  // fp32 [T, experts]
  at::Tensor losses;  // fp32 [router_loss_count], in the order of RouterLosses; times coefficients
};

// A router's own losses over a rank's tokens, which add up over ranks, and their gradient by the
// logits; of the choice there is none. `token_count`, fp32 [1]: N tokens of the whole step, over
// all ranks and micro-batches. With p(t, e) the scores of a token made to sum to one (softmax of
// its logits; of a sigmoid router their sigmoids over the sum of them), E experts of which k are
// chosen, n(e) the loads and S a sequence's tokens, of which n(s, e) chose expert e:
//
//   balance           c E / N  sum over t, e of n(e) / sum(n) p(t, e)
//   sequence balance  c E / N  sum over t, e of n(s, e) / (k S) p(t, e), t in sequence s
//   z                 c / N    sum over t of log-sum-exp(logits)^2
//
// the first of which is c E / (k T) sum over e of n(e) mean of p(t, e) where the step is one
// micro-batch of T tokens: arXiv 2101.03961 and 2405.04434; the second: 2412.19437, section 2.1.2;
// the third: 2202.08906. Throws Error if shapes or dtypes do not fit.
RouterLossGradient router_losses(const RouterConfig& config, const RouterLosses& coefficients,
                                 const RoutedTokens& tokens, const at::Tensor& token_count,
                                 const std::vector<int64_t>& lengths);

}  // namespace farskip
