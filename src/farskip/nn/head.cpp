#include "farskip/nn/head.h"

#include <ATen/ops/index_select.h>

#include <string>

#include "farskip/base/error.h"
#include "farskip/nn/check.h"
#include "farskip/nn/linear.h"
#include "farskip/nn/norm.h"

namespace farskip {

at::Tensor embed(const at::Tensor& weight, const at::Tensor& ids) {
  require_shape(weight, {-1, -1}, "embedding weight");
  require_shape(ids, {-1}, "token ids");
  require_dtype(ids, at::kLong, "token ids");
  if (ids.is_cpu() && ids.numel() > 0) {
    const int64_t least = ids.min().item<int64_t>(), most = ids.max().item<int64_t>();
    if (least < 0 || most >= weight.size(0)) {
      throw Error("token id is out of the vocabulary",
                  {.where = "token ids",
                   .expected = "0 to " + std::to_string(weight.size(0) - 1),
                   .found = std::to_string(least < 0 ? least : most),
                   .hint = "the tokens may come from another model's tokenizer"});
    }
  }
  return at::index_select(weight, 0, ids.to(weight.device()));
}

at::Tensor logits(const at::Tensor& x, const at::Tensor& norm_weight, double eps,
                  const at::Tensor& head) {
  return linear(rms_norm(x, norm_weight, eps), head).to(at::kFloat);
}

}  // namespace farskip
