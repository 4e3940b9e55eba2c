#include "farskip/nn/experts_gradient.h"

#include "farskip/nn/check.h"
#include "farskip/nn/expert_rows.h"

namespace farskip {

MlpGradient experts_gradient(const at::Tensor& d_out, const at::Tensor& products,
                             const at::Tensor& counts, const at::Tensor& gate_up,
                             const at::Tensor& down) {
  require_shape(down, {-1, d_out.size(1), -1}, "experts down");
  require_shape(products, {d_out.size(0), 2 * down.size(2)}, "experts products");
  require_shape(gate_up, {down.size(0), 2 * down.size(2), d_out.size(1)}, "experts gate_up");
  const ExpertRows by(counts, d_out.size(0));
  SiluGradient silu = silu_multiply_gradient(by.product(by.by_expert(d_out), down), products);
  return {.rows = by.by_source(by.product(silu.deltas, gate_up)),
          .deltas = std::move(silu.deltas),
          .activated = std::move(silu.activated)};
}

void experts_weight_gradient(const WeightGradient& gate_up, const WeightGradient& down,
                             const at::Tensor& rows, const at::Tensor& deltas,
                             const at::Tensor& activated, const at::Tensor& d_out,
                             const at::Tensor& counts) {
  const ExpertRows by(counts, rows.size(0));
  by.weight_product(gate_up, deltas, by.by_expert(rows));
  by.weight_product(down, by.by_expert(d_out), activated);
}

}  // namespace farskip
