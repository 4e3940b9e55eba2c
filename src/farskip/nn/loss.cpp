#include "farskip/nn/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>

#include "farskip/cuda/loss.h"
#include "farskip/nn/check.h"
#include "farskip/nn/gpu.h"

namespace farskip {
namespace {

void check(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& label_count) {
  require_shape(logits, {-1, -1}, "loss logits");
  require_shape(labels, {logits.size(0)}, "labels");
  require_dtype(labels, at::kLong, "labels");
  require_shape(label_count, {1}, "label count");
  require_dtype(label_count, at::kFloat, "label count");
  if (!labels.is_cpu()) return;
  const at::Tensor dense = labels.contiguous();
  const int64_t* label = dense.const_data_ptr<int64_t>();
  for (int64_t token = 0; token < dense.size(0); ++token) {
    if (label[token] != no_label) require_index(label[token], logits.size(1), "label");
  }
}

}  // namespace

CrossEntropy cross_entropy(const at::Tensor& logits, const at::Tensor& labels,
                           const at::Tensor& label_count) {
  check(logits, labels, label_count);
  CrossEntropy result;
  if (has_gpu_kernels(logits)) {
    result.loss = at::empty({1}, logits.options().dtype(at::kFloat));
    result.log_sum_exp = at::empty(labels.sizes(), result.loss.options());
    cuda::cross_entropy_out(result.loss, result.log_sum_exp, logits, labels, label_count);
    return result;
  }
  const at::Tensor wide = logits.to(at::kFloat);
  result.log_sum_exp = at::logsumexp(wide, {1});
  const at::Tensor known = labels.ne(no_label);
  const at::Tensor of_label = wide.gather(1, labels.clamp_min(0).unsqueeze(1)).squeeze(1);
  result.loss = ((result.log_sum_exp - of_label) * known).sum().view({1}) / label_count;
  return result;
}

void cross_entropy_gradient_out(const at::Tensor& out, const at::Tensor& logits,
                                const at::Tensor& labels, const at::Tensor& label_count,
                                const at::Tensor& log_sum_exp) {
  check(logits, labels, label_count);
  require_shape(out, logits.sizes(), "logits gradient");
  require_dtype(out, logits.scalar_type(), "logits gradient");
  require_shape(log_sum_exp, labels.sizes(), "log-sum-exp");
  if (has_gpu_kernels(logits)) {
    return cuda::cross_entropy_gradient_out(out, logits, labels, label_count, log_sum_exp);
  }
  const at::Tensor weight = (labels.ne(no_label) / label_count).unsqueeze(1);
  at::Tensor gradient = (logits.to(at::kFloat) - log_sum_exp.unsqueeze(1)).exp_().mul_(weight);
  gradient.scatter_add_(1, labels.clamp_min(0).unsqueeze(1), weight.neg());
  at::Tensor(out).copy_(gradient);
}

void embedding_gradient(const WeightGradient& gradient, const at::Tensor& d_rows,
                        const at::Tensor& ids) {
  require_shape(d_rows, {-1, gradient.tensor.size(1)}, "embedding gradient");
  require_shape(ids, {d_rows.size(0)}, "token ids");
  at::Tensor table = gradient.tensor;
  if (!gradient.add) table.zero_();
  table.index_add_(0, ids, d_rows.to(table.scalar_type()));
}

}  // namespace farskip
