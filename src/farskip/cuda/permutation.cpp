#include "farskip/cuda/permutation.h"

#include <ATen/ops/cat.h>
#include <c10/cuda/CUDAGuard.h>

#include "farskip/base/error.h"
#include "farskip/cuda/check.h"
#include "farskip/cuda/permutation_kernels.h"

namespace farskip::cuda {
namespace {

void require_first_row(int64_t first_row) {
  if (first_row >= 0) return;
  throw Error("rows begin before the first", {.where = "permute first_row",
                                              .expected = "0 or more",
                                              .found = std::to_string(first_row),
                                              .hint = {}});
}

// Checks what all forms share; `out` is [rows, width] of any dtype.
PermuteArguments permute_arguments(const at::Tensor& out, const at::Tensor& x,
                                   const at::Tensor& slots, int64_t top_k, int64_t first_row) {
  require_on_gpu(x, {-1, -1}, "permute input");
  require_dense_rows(x, "permute input");
  require_on_gpu(out, {-1, x.size(1)}, "permute output");
  require_one_device("permute", {out, x, slots});
  require_dense_rows(out, "permute output");
  require_contiguous(slots, "permute order");
  require_choices(top_k, "permute top_k");
  require_first_row(first_row);
  return {.out = out.mutable_data_ptr(),
          .scales = nullptr,
          .in = x.const_data_ptr(),
          .slots = slots.const_data_ptr<int64_t>(),
          .out_stride = out.stride(0),
          .scale_stride = 0,
          .in_stride = x.stride(0),
          .tokens = x.size(0),
          .rows = out.size(0),
          .first_row = first_row,
          .width = static_cast<int>(x.size(1)),
          .top_k = static_cast<int>(top_k)};
}

// FP8 rows are read and written 16 bytes at a time.
void require_blocks(const at::Tensor& values, std::string_view name) {
  if (values.size(1) % quantization_block == 0 && values.stride(0) % 16 == 0 &&
      is_aligned(values.const_data_ptr())) {
    return;
  }
  throw UnsupportedError("rows do not divide into blocks of one scale",
                         {.where = std::string(name),
                          .expected = "a multiple of 128 elements, rows aligned to 16 bytes",
                          .found = std::to_string(values.size(1)) + " elements, rows " +
                                   std::to_string(values.stride(0)) + " bytes apart",
                          .hint = {}});
}

RowChunks row_chunks(std::span<const at::Tensor> chunks) {
  RowChunks rows{};
  for (const at::Tensor& chunk : chunks) {
    rows.base[rows.count] = chunk.const_data_ptr();
    rows.stride[rows.count] = chunk.stride(0);
    rows.first[rows.count + 1] = rows.first[rows.count] + chunk.size(0);
    ++rows.count;
  }
  return rows;
}

}  // namespace

void permute_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& order,
                 int64_t top_k) {
  require_on_gpu(out, {-1, -1}, "permute output");
  require_on_gpu(order, {out.size(0)}, at::kLong, "permute order");
  const PermuteArguments arguments = permute_arguments(out, x, order, top_k, 0);
  const Element from = element_of(x, "permute input"), to = element_of(out, "permute output");
  if (out.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(out.device());
  launch_permute(from, to, /*gather=*/true, arguments, stream_of(out));
}

void permute_by_inverse_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& inverse,
                            int64_t top_k, int64_t first_row) {
  require_on_gpu(x, {-1, -1}, "permute input");
  require_on_gpu(inverse, {x.size(0) * top_k}, at::kLong, "permute inverse");
  const PermuteArguments arguments = permute_arguments(out, x, inverse, top_k, first_row);
  const Element from = element_of(x, "permute input"), to = element_of(out, "permute output");
  if (out.numel() == 0 || x.size(0) == 0) return;
  const c10::cuda::CUDAGuard guard(out.device());
  launch_permute(from, to, /*gather=*/false, arguments, stream_of(out));
}

void permute_quantized_out(const at::Tensor& out, const at::Tensor& scales, const at::Tensor& x,
                           const at::Tensor& inverse, int64_t top_k, int64_t first_row) {
  require_on_gpu(x, {-1, -1}, "permute input");
  require_on_gpu(inverse, {x.size(0) * top_k}, at::kLong, "permute inverse");
  require_on_gpu(out, {-1, x.size(1)}, at::kFloat8_e4m3fn, "permute output");
  require_on_gpu(scales, {out.size(0), x.size(1) / quantization_block}, at::kFloat,
                 "permute scales");
  require_one_device("permute", {out, scales});
  require_dense_rows(scales, "permute scales");
  PermuteArguments arguments = permute_arguments(out, x, inverse, top_k, first_row);
  require_blocks(out, "permute output");
  const Element from = element_of(x, "permute input");
  if (out.numel() == 0 || x.size(0) == 0) return;
  arguments.scales = scales.mutable_data_ptr<float>();
  arguments.scale_stride = scales.stride(0);
  const c10::cuda::CUDAGuard guard(out.device());
  launch_permute_quantized(from, arguments, stream_of(out));
}

void dequantize_out(const at::Tensor& out, const at::Tensor& values, const at::Tensor& scales) {
  require_on_gpu(out, {-1, -1}, "dequantize output");
  require_on_gpu(values, out.sizes(), at::kFloat8_e4m3fn, "dequantize values");
  require_on_gpu(scales, {out.size(0), out.size(1) / quantization_block}, at::kFloat,
                 "dequantize scales");
  require_one_device("dequantize", {out, values, scales});
  for (const at::Tensor& rows : {out, values, scales}) require_dense_rows(rows, "dequantize");
  const Element element = element_of(out, "dequantize output");
  require_blocks(values, "dequantize values");
  if (out.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(out.device());
  launch_dequantize(element,
                    {.out = out.mutable_data_ptr(),
                     .values = values.const_data_ptr(),
                     .scales = scales.const_data_ptr<float>(),
                     .out_stride = out.stride(0),
                     .value_stride = values.stride(0),
                     .scale_stride = scales.stride(0),
                     .rows = out.size(0),
                     .width = static_cast<int>(out.size(1))},
                    stream_of(out));
}

void unpermute_out(const at::Tensor& out, std::span<const at::Tensor> chunks,
                   const at::Tensor& inverse, const at::Tensor& weights) {
  require_on_gpu(weights, {-1, -1}, at::kFloat, "unpermute weights");
  require_contiguous(weights, "unpermute weights");
  const int64_t tokens = weights.size(0), top_k = weights.size(1);
  require_on_gpu(inverse, {tokens * top_k}, at::kLong, "unpermute inverse");
  require_contiguous(inverse, "unpermute inverse");
  require_choices(top_k, "unpermute weights");
  require_on_gpu(out, {tokens, -1}, "unpermute output");
  require_one_device("unpermute", {out, inverse, weights});
  require_contiguous(out, "unpermute output");
  const Element element = element_of(out, "unpermute output");
  if (chunks.empty()) {
    throw Error("no rows to bring home", {.where = "unpermute rows",
                                          .expected = "at least one chunk",
                                          .found = "none",
                                          .hint = "pass an empty tensor for zero tokens"});
  }
  for (const at::Tensor& chunk : chunks) {
    require_on_gpu(chunk, {-1, out.size(1)}, out.scalar_type(), "unpermute rows");
    require_one_device("unpermute", {out, chunk});
    require_dense_rows(chunk, "unpermute rows");
  }
  if (out.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(out.device());
  at::Tensor joined;
  if (chunks.size() > static_cast<size_t>(max_chunks)) {
    joined = at::cat(at::TensorList(chunks.data(), chunks.size()));
    chunks = std::span(&joined, 1);
  }
  launch_unpermute(element,
                   {.out = out.mutable_data_ptr(),
                    .rows = row_chunks(chunks),
                    .inverse = inverse.const_data_ptr<int64_t>(),
                    .weights = weights.const_data_ptr<float>(),
                    .tokens = tokens,
                    .width = static_cast<int>(out.size(1)),
                    .top_k = static_cast<int>(top_k)},
                   stream_of(out));
}

}  // namespace farskip::cuda
