#include "farskip/train/expert_loads.h"

#include <ATen/TensorOperators.h>

#include "farskip/nn/check.h"

namespace farskip {

std::vector<double> max_over_mean_loads(const at::Tensor& loads) {
  require_shape(loads, {-1, -1}, "expert loads");
  std::vector<double> result;
  for (int64_t router = 0; router < loads.size(0); ++router) {
    const at::Tensor own = loads[router];
    const auto total = own.sum().item<double>();
    const double most = own.max().item<double>() * static_cast<double>(own.size(0));
    result.push_back(total > 0 ? most / total : 1);
  }
  return result;
}

void update_correction_bias(const at::Tensor& bias, const at::Tensor& loads, double speed) {
  require_shape(bias, {-1}, "correction bias");
  require_dtype(bias, at::kFloat, "correction bias");
  require_shape(loads, bias.sizes(), "expert loads");
  require_dtype(loads, at::kLong, "expert loads");
  // In integers, so that a load that is the mean moves nothing.
  const at::Tensor direction = (loads.sum() - loads * loads.size(0)).sign();
  at::Tensor(bias).add_(direction.to(bias.device(), at::kFloat), speed);
}

}  // namespace farskip
