#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>

#include "farskip/train/adamw.h"

namespace farskip::tensor_ops {

void adamw_step(const at::Tensor& master, const at::Tensor& m, const at::Tensor& v,
                const at::Tensor& gradient, const at::Tensor& parameter, const AdamwStep& step) {
  at::Tensor scaled = gradient.to(at::kFloat);
  if (step.gradient_scale != 1) scaled = scaled * step.gradient_scale;
  const at::Tensor count = at::full({}, static_cast<double>(step.step), master.options());
  at::_fused_adamw_({master}, {scaled}, {m}, {v}, {}, {count}, step.learning_rate, step.beta1,
                    step.beta2, step.weight_decay, step.epsilon, /*amsgrad=*/false,
                    /*maximize=*/false);
  if (parameter.defined()) at::Tensor(parameter).copy_(master);
}

}  // namespace farskip::tensor_ops
