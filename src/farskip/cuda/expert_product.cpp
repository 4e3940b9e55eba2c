#include "farskip/cuda/expert_product.h"

#include <ATen/Context.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>

#include "farskip/base/error.h"
#include "farskip/cuda/check.h"
#include "farskip/cuda/expert_product_kernels.h"

namespace farskip::cuda {
namespace {

bool is_dense_bf16(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 && x.is_contiguous() && x.size(-1) % 8 == 0 &&
         is_aligned(x.const_data_ptr());
}

void require_index(const at::Tensor& index, int64_t size, at::ScalarType dtype, const char* name) {
  if (!index.defined()) return;
  require_on_gpu(index, {size}, dtype, name);
  require_contiguous(index, name);
}

// What the two functions have in common; `halves`: matrices for each column of `out`.
ExpertProductArguments arguments_of(const at::Tensor& out, const at::Tensor& rows,
                                    const at::Tensor& matrices, const at::Tensor& ends,
                                    const at::Tensor& order, int64_t halves, int64_t choices) {
  require_on_gpu(rows, {-1, -1}, at::kBFloat16, "expert rows");
  require_on_gpu(out, {rows.size(0) * choices, -1}, at::kBFloat16, "expert output");
  const int64_t width = out.size(1), experts = ends.defined() ? ends.size(0) : 1;
  require_on_gpu(matrices, {experts, halves * width, rows.size(1)}, at::kBFloat16,
                 "expert matrices");
  require_index(ends, experts, at::kInt, "expert ends");
  require_index(order, out.size(0), at::kLong, "expert order");
  require_one_device("expert_product", {out, rows, matrices, ends, order});
  if (!has_expert_product(rows, matrices) || !is_dense_bf16(out)) {
    throw UnsupportedError("there is no kernel for such a product",
                           {.where = "expert_product",
                            .expected = "dense rows of whole 16-byte parts, compute capability 9.0",
                            .found = "rows and matrices of other widths, strides or devices"});
  }
  const int kept_free = at::globalContext()._SMCarveout_EXPERIMENTAL().value_or(0);
  return {.out = out.mutable_data_ptr(),
          .in = rows.const_data_ptr(),
          .matrices = matrices.const_data_ptr(),
          .ends = ends.defined() ? ends.const_data_ptr<int32_t>() : nullptr,
          .order = order.defined() ? order.const_data_ptr<int64_t>() : nullptr,
          .drawn = nullptr,
          .rows = out.size(0),
          .choices = static_cast<int>(choices),
          .experts = static_cast<int>(experts),
          .depth = static_cast<int>(rows.size(1)),
          .width = static_cast<int>(width),
          .multiprocessors = std::max(2, multiprocessors() - kept_free)};
}

// With a number to count tiles with.
template <typename Launch>
void launch_on(const at::Tensor& out, ExpertProductArguments arguments, Launch launch) {
  if (out.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(out.device());
  const at::Tensor drawn = at::zeros({1}, out.options().dtype(at::kInt));
  arguments.drawn = drawn.mutable_data_ptr<int>();
  launch(arguments, stream_of(out));
}

}  // namespace

bool has_expert_product(const at::Tensor& rows, const at::Tensor& matrices) {
  if (!rows.is_cuda() || !matrices.is_cuda()) return false;
  if (!is_dense_bf16(rows) || !is_dense_bf16(matrices)) return false;
  const int64_t matrix_rows = matrices.numel() / std::max<int64_t>(1, matrices.size(-1));
  if (matrices.size(-2) % 8 != 0 || matrix_rows > INT32_MAX || rows.size(0) > INT32_MAX) {
    return false;
  }
  const c10::cuda::CUDAGuard guard(rows.device());
  return has_expert_product_kernels();
}

bool fills_gpu(const at::Tensor& rows, const at::Tensor& matrix) {
  constexpr int64_t turns = 2;
  const c10::cuda::CUDAGuard guard(rows.device());
  return divide_up(rows.size(0), tile_rows) * divide_up(matrix.size(0), tile_columns) >=
         turns * multiprocessors();
}

void expert_product_out(const at::Tensor& out, const at::Tensor& rows, const at::Tensor& matrices,
                        const at::Tensor& ends, const at::Tensor& order) {
  launch_on(out, arguments_of(out, rows, matrices, ends, order, 1, 1), launch_expert_product);
}

void expert_swiglu_out(const at::Tensor& out, const at::Tensor& rows, const at::Tensor& gate_up,
                       const at::Tensor& ends, const at::Tensor& order, int64_t choices) {
  const int64_t of_a_token = order.defined() ? choices : 1;
  launch_on(out, arguments_of(out, rows, gate_up, ends, order, 2, of_a_token),
            launch_expert_swiglu);
}

}  // namespace farskip::cuda
