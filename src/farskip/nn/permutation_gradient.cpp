#include "farskip/nn/permutation_gradient.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "farskip/cuda/permutation_gradient.h"
#include "farskip/nn/check.h"
#include "farskip/nn/gpu.h"
#include "farskip/nn/permutation.h"
#include "farskip/nn/tensor_ops.h"

namespace farskip {
namespace {

void check(const at::Tensor& rows, const at::Tensor& d_out, const at::Tensor& inverse,
           int64_t top_k) {
  require_shape(d_out, {-1, -1}, "unpermute gradient");
  require_shape(rows, {-1, d_out.size(1)}, "unpermute rows");
  require_dtype(rows, d_out.scalar_type(), "unpermute rows");
  require_shape(inverse, {d_out.size(0) * top_k}, "unpermute inverse");
  require_dtype(inverse, at::kLong, "unpermute inverse");
}

template <typename scalar_t>
void spread(const at::Tensor& rows, const at::Tensor& d_out, const int64_t* row_of_slot,
            const float* weights, int64_t top_k) {
  using real = at::opmath_type<scalar_t>;
  const int64_t width = rows.size(1);
  const scalar_t* from = d_out.const_data_ptr<scalar_t>();
  scalar_t* to = rows.mutable_data_ptr<scalar_t>();
  for (int64_t slot = 0; slot < d_out.size(0) * top_k; ++slot) {
    if (row_of_slot[slot] == -1) continue;
    require_index(row_of_slot[slot], rows.size(0), "unpermute inverse");
    const real weight = weights[slot];
    const scalar_t* token = from + slot / top_k * width;
    scalar_t* row = to + row_of_slot[slot] * width;
    for (int64_t i = 0; i < width; ++i) {
      row[i] = static_cast<scalar_t>(weight * static_cast<real>(token[i]));
    }
  }
}

template <typename scalar_t>
float dot(const scalar_t* a, const scalar_t* b, int64_t width) {
  constexpr int64_t lanes = 16;
  float partial[lanes] = {};
  for (int64_t i = 0; i < width; ++i) {
    partial[i % lanes] += static_cast<float>(a[i]) * static_cast<float>(b[i]);
  }
  float sum = 0;
  for (float value : partial) sum += value;
  return sum;
}

}  // namespace

void unpermute_gradient_out(const at::Tensor& rows, const at::Tensor& d_out,
                            const at::Tensor& inverse, const at::Tensor& weights) {
  require_shape(weights, {d_out.size(0), -1}, "unpermute weights");
  require_dtype(weights, at::kFloat, "unpermute weights");
  const int64_t top_k = weights.size(1);
  check(rows, d_out, inverse, top_k);
  if (has_gpu_kernels(rows)) return cuda::unpermute_gradient_out(rows, d_out, inverse, weights);
  if (!rows.is_cpu()) {
    const at::Tensor weighed = d_out.unsqueeze(1).to(at::kFloat) * weights.unsqueeze(2);
    return permute_by_inverse_out(rows, weighed.flatten(0, 1).to(rows.scalar_type()), inverse, 1);
  }
  const at::Tensor dense = d_out.contiguous(), slots = inverse.contiguous(),
                   weight = weights.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, rows.scalar_type(),
                                  "unpermute_gradient", [&] {
                                    spread<scalar_t>(rows, dense, slots.const_data_ptr<int64_t>(),
                                                     weight.const_data_ptr<float>(), top_k);
                                  });
}

at::Tensor routing_weights_gradient(const at::Tensor& d_out, const at::Tensor& rows,
                                    const at::Tensor& inverse, int64_t top_k) {
  check(rows, d_out, inverse, top_k);
  const int64_t tokens = d_out.size(0), width = d_out.size(1);
  if (has_gpu_kernels(rows)) {
    const at::Tensor out = at::empty({tokens, top_k}, rows.options().dtype(at::kFloat));
    cuda::routing_weights_gradient_out(out, d_out, rows, inverse);
    return out;
  }
  if (!rows.is_cpu()) {
    const at::Tensor absent = inverse.lt(0).view({tokens, top_k});
    const at::Tensor chosen =
        rows.index_select(0, inverse.clamp_min(0)).view({tokens, top_k, width}).to(at::kFloat);
    return (chosen * d_out.unsqueeze(1).to(at::kFloat)).sum(2).masked_fill(absent, 0);
  }
  const at::Tensor result = at::zeros({tokens, top_k}, at::kFloat);
  const at::Tensor dense = d_out.contiguous(), from = rows.contiguous(),
                   slots = inverse.contiguous();
  const int64_t* row_of_slot = slots.const_data_ptr<int64_t>();
  float* out = result.mutable_data_ptr<float>();
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, rows.scalar_type(), "routing_weights_gradient", [&] {
        for (int64_t slot = 0; slot < tokens * top_k; ++slot) {
          if (row_of_slot[slot] == -1) continue;
          require_index(row_of_slot[slot], rows.size(0), "unpermute inverse");
          out[slot] = dot(dense.const_data_ptr<scalar_t>() + slot / top_k * width,
                          from.const_data_ptr<scalar_t>() + row_of_slot[slot] * width, width);
        }
      });
  return result;
}

at::Tensor permute_gradient(const at::Tensor& d_rows, const at::Tensor& inverse, int64_t top_k) {
  const at::Tensor ones =
      at::ones({inverse.size(0) / top_k, top_k}, d_rows.options().dtype(at::kFloat));
  return unpermute(d_rows, inverse, ones);
}

}  // namespace farskip
