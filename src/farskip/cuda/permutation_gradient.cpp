#include "farskip/cuda/permutation_gradient.h"

#include <c10/cuda/CUDAGuard.h>

#include "farskip/cuda/check.h"
#include "farskip/cuda/permutation_gradient_kernels.h"

namespace farskip::cuda {
namespace {

// What both gradients share; `of_slots` fp32 [T, k].
void check(const at::Tensor& d_out, const at::Tensor& rows, const at::Tensor& inverse,
           const at::Tensor& of_slots) {
  require_on_gpu(d_out, {-1, -1}, "unpermute gradient");
  require_on_gpu(rows, {-1, d_out.size(1)}, d_out.scalar_type(), "unpermute rows");
  require_on_gpu(of_slots, {d_out.size(0), -1}, at::kFloat, "unpermute weights");
  require_on_gpu(inverse, {of_slots.numel()}, at::kLong, "unpermute inverse");
  require_one_device("unpermute_gradient", {d_out, rows, inverse, of_slots});
  require_dense_rows(d_out, "unpermute gradient");
  require_dense_rows(rows, "unpermute rows");
  require_contiguous(inverse, "unpermute inverse");
  require_contiguous(of_slots, "unpermute weights");
  require_choices(of_slots.size(1), "unpermute weights");
}

}  // namespace

void unpermute_gradient_out(const at::Tensor& rows, const at::Tensor& d_out,
                            const at::Tensor& inverse, const at::Tensor& weights) {
  check(d_out, rows, inverse, weights);
  const Element element = element_of(d_out, "unpermute gradient");
  if (d_out.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(d_out.device());
  launch_unpermute_gradient(element,
                            {.rows = rows.mutable_data_ptr(),
                             .d_out = d_out.const_data_ptr(),
                             .inverse = inverse.const_data_ptr<int64_t>(),
                             .weights = weights.const_data_ptr<float>(),
                             .row_stride = rows.stride(0),
                             .d_out_stride = d_out.stride(0),
                             .tokens = d_out.size(0),
                             .width = static_cast<int>(d_out.size(1)),
                             .top_k = static_cast<int>(weights.size(1))},
                            stream_of(d_out));
}

void routing_weights_gradient_out(const at::Tensor& out, const at::Tensor& d_out,
                                  const at::Tensor& rows, const at::Tensor& inverse) {
  check(d_out, rows, inverse, out);
  const Element element = element_of(d_out, "unpermute gradient");
  if (out.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(d_out.device());
  launch_routing_weights_gradient(element,
                                  {.out = out.mutable_data_ptr<float>(),
                                   .d_out = d_out.const_data_ptr(),
                                   .rows = rows.const_data_ptr(),
                                   .inverse = inverse.const_data_ptr<int64_t>(),
                                   .d_out_stride = d_out.stride(0),
                                   .row_stride = rows.stride(0),
                                   .tokens = d_out.size(0),
                                   .width = static_cast<int>(d_out.size(1)),
                                   .top_k = static_cast<int>(out.size(1))},
                                  stream_of(d_out));
}

}  // namespace farskip::cuda
