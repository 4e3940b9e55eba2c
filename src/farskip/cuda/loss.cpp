#include "farskip/cuda/loss.h"

#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAGuard.h>

#include "farskip/cuda/check.h"
#include "farskip/cuda/loss_kernels.h"

namespace farskip::cuda {
namespace {

CrossEntropyArguments arguments_of(const at::Tensor& logits, const at::Tensor& labels,
                                   const at::Tensor& label_count, const at::Tensor& log_sum_exp) {
  require_on_gpu(logits, {-1, -1}, "loss logits");
  const int64_t tokens = logits.size(0);
  require_on_gpu(labels, {tokens}, at::kLong, "labels");
  require_on_gpu(label_count, {1}, at::kFloat, "label count");
  require_on_gpu(log_sum_exp, {tokens}, at::kFloat, "log-sum-exp");
  require_one_device("cross_entropy", {logits, labels, label_count, log_sum_exp});
  require_contiguous(logits, "loss logits");
  require_contiguous(labels, "labels");
  require_contiguous(log_sum_exp, "log-sum-exp");
  return {.logits = logits.const_data_ptr(),
          .labels = labels.const_data_ptr<int64_t>(),
          .label_count = label_count.const_data_ptr<float>(),
          .log_sum_exp = log_sum_exp.mutable_data_ptr<float>(),
          .tokens = tokens,
          .vocabulary = logits.size(1)};
}

}  // namespace

void cross_entropy_out(const at::Tensor& loss, const at::Tensor& log_sum_exp,
                       const at::Tensor& logits, const at::Tensor& labels,
                       const at::Tensor& label_count) {
  const CrossEntropyArguments arguments = arguments_of(logits, labels, label_count, log_sum_exp);
  require_on_gpu(loss, {1}, at::kFloat, "loss");
  require_one_device("cross_entropy", {logits, loss});
  const Element element = element_of(logits, "loss logits");
  const c10::cuda::CUDAGuard guard(logits.device());
  const at::Tensor terms = at::empty_like(log_sum_exp);
  launch_cross_entropy(element, arguments, loss.mutable_data_ptr<float>(),
                       terms.mutable_data_ptr<float>(), stream_of(logits));
}

void cross_entropy_gradient_out(const at::Tensor& out, const at::Tensor& logits,
                                const at::Tensor& labels, const at::Tensor& label_count,
                                const at::Tensor& log_sum_exp) {
  const CrossEntropyArguments arguments = arguments_of(logits, labels, label_count, log_sum_exp);
  require_on_gpu(out, logits.sizes(), logits.scalar_type(), "logits gradient");
  require_one_device("cross_entropy_gradient", {logits, out});
  require_contiguous(out, "logits gradient");
  const Element element = element_of(logits, "loss logits");
  if (out.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(logits.device());
  launch_cross_entropy_gradient(element, arguments, out.mutable_data_ptr(), stream_of(logits));
}

}  // namespace farskip::cuda
