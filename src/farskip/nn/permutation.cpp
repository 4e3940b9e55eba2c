#include "farskip/nn/permutation.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/cuda/permutation.h"
#include "farskip/cuda/routing.h"
#include "farskip/nn/check.h"
#include "farskip/nn/gpu.h"
#include "farskip/nn/tensor_ops.h"

namespace farskip {
namespace {

void require_bijection(std::span<const int64_t> position) {
  std::vector<bool> taken(position.size());
  for (const int64_t p : position) {
    require_index(p, static_cast<int64_t>(position.size()), "position_of_expert");
    if (taken[p]) {
      throw Error("two experts have one position", {.where = "position_of_expert",
                                                    .expected = "every position once",
                                                    .found = std::to_string(p) + " twice",
                                                    .hint = {}});
    }
    taken[p] = true;
  }
}

// What both forms of permute ask of their arguments.
void require_rows(const at::Tensor& out, const at::Tensor& x, const at::Tensor& slots,
                  int64_t top_k) {
  require_shape(x, {-1, -1}, "permute input");
  require_dense_rows(x, "permute input");
  require_shape(out, {-1, x.size(1)}, "permute output");
  require_dtype(out, x.scalar_type(), "permute output");
  require_dense_rows(out, "permute output");
  require_dtype(slots, at::kLong, "permute order");
  if (top_k >= 1) return;
  throw Error("no choices to permute for", {.where = "permute top_k",
                                            .expected = "1 or more",
                                            .found = std::to_string(top_k),
                                            .hint = {}});
}

// One token: a block of columns at a time, so that the fp32 sums stay in registers.
template <typename scalar_t>
void sum_rows(scalar_t* out, std::span<const char* const> rows, const float* weights,
              int64_t width) {
  using real = at::opmath_type<scalar_t>;
  constexpr int64_t block = 32;
  for (int64_t first = 0; first < width; first += block) {
    std::array<real, block> sum{};
    const int64_t columns = std::min(block, width - first);
    for (size_t slot = 0; slot < rows.size(); ++slot) {
      const scalar_t* row = reinterpret_cast<const scalar_t*>(rows[slot]) + first;
      const real weight = weights[slot];
      if (columns == block) {
        for (int64_t i = 0; i < block; ++i) sum[i] += weight * static_cast<real>(row[i]);
      } else {
        for (int64_t i = 0; i < columns; ++i) sum[i] += weight * static_cast<real>(row[i]);
      }
    }
    for (int64_t i = 0; i < columns; ++i) out[first + i] = static_cast<scalar_t>(sum[i]);
  }
}

// Address of every row of all chunks, one after the other.
std::vector<const char*> row_addresses(std::span<const at::Tensor> chunks) {
  std::vector<const char*> addresses;
  for (const at::Tensor& chunk : chunks) {
    const char* data = static_cast<const char*>(chunk.const_data_ptr());
    const int64_t bytes = chunk.stride(0) * chunk.element_size();
    for (int64_t row = 0; row < chunk.size(0); ++row) addresses.push_back(data + row * bytes);
  }
  return addresses;
}

}  // namespace

DispatchPlan make_plan(const at::Tensor& experts, const at::Tensor& position_of_expert) {
  require_shape(experts, {-1, -1}, "expert ids");
  require_dtype(experts, at::kLong, "expert ids");
  require_shape(position_of_expert, {-1}, "position_of_expert");
  require_dtype(position_of_expert, at::kLong, "position_of_expert");
  if (cuda_is_built() && experts.is_cuda()) {
    const auto options = experts.options();
    const DispatchPlan plan{at::empty({experts.numel()}, options),
                            at::empty({experts.numel()}, options),
                            at::empty(position_of_expert.sizes(), options)};
    cuda::make_plan_out({plan.order, plan.inverse, plan.counts}, experts.contiguous(),
                        position_of_expert.contiguous());
    return plan;
  }
  if (!experts.is_cpu()) return tensor_ops::make_plan(experts, position_of_expert);

  const int64_t slots = experts.numel(), expert_count = position_of_expert.numel();
  const at::Tensor dense = experts.contiguous(), positions = position_of_expert.contiguous();
  const int64_t* id = dense.const_data_ptr<int64_t>();
  const int64_t* position = positions.const_data_ptr<int64_t>();
  require_bijection({position, static_cast<size_t>(expert_count)});

  DispatchPlan plan{at::empty({slots}, at::kLong), at::empty({slots}, at::kLong),
                    at::zeros({expert_count}, at::kLong)};
  int64_t* counts = plan.counts.mutable_data_ptr<int64_t>();
  for (int64_t slot = 0; slot < slots; ++slot) {
    require_index(id[slot], expert_count, "expert ids");
    ++counts[position[id[slot]]];
  }
  std::vector<int64_t> next(expert_count);
  for (int64_t p = 1; p < expert_count; ++p) next[p] = next[p - 1] + counts[p - 1];
  int64_t* order = plan.order.mutable_data_ptr<int64_t>();
  int64_t* inverse = plan.inverse.mutable_data_ptr<int64_t>();
  for (int64_t slot = 0; slot < slots; ++slot) {
    const int64_t row = next[position[id[slot]]]++;
    order[row] = slot;
    inverse[slot] = row;
  }
  return plan;
}

DispatchPlan sort_by_key(const at::Tensor& keys, int64_t count) {
  return make_plan(keys.reshape({-1, 1}), at::arange(count, keys.options()));
}

at::Tensor permute(const at::Tensor& x, const at::Tensor& order, int64_t top_k) {
  require_shape(x, {-1, -1}, "permute input");
  require_shape(order, {-1}, "permute order");
  at::Tensor out = at::empty({order.size(0), x.size(1)}, x.options());
  permute_out(out, x, order, top_k);
  return out;
}

void permute_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& order,
                 int64_t top_k) {
  require_rows(out, x, order, top_k);
  require_shape(order, {out.size(0)}, "permute order");
  if (has_gpu_kernels(x)) return cuda::permute_out(out, x, order.contiguous(), top_k);
  if (!x.is_cpu()) {
    at::Tensor(out).copy_(x.index_select(0, order.floor_divide(top_k)));
    return;
  }
  const int64_t bytes = x.size(1) * x.element_size();
  const int64_t stride = x.stride(0) * x.element_size();
  const int64_t out_stride = out.stride(0) * out.element_size();
  const at::Tensor dense = order.contiguous();
  const int64_t* slot = dense.const_data_ptr<int64_t>();
  const char* from = static_cast<const char*>(x.const_data_ptr());
  char* to = static_cast<char*>(out.mutable_data_ptr());
  for (int64_t row = 0; row < out.size(0); ++row) {
    require_index(slot[row], x.size(0) * top_k, "permute order");
    if (bytes > 0) std::memcpy(to + row * out_stride, from + slot[row] / top_k * stride, bytes);
  }
}

void permute_by_inverse_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& inverse,
                            int64_t top_k, int64_t first_row) {
  require_rows(out, x, inverse, top_k);
  require_shape(inverse, {x.size(0) * top_k}, "permute inverse");
  const at::Tensor dense = inverse.contiguous();
  if (has_gpu_kernels(x)) {
    return cuda::permute_by_inverse_out(out, x, dense, top_k, first_row);
  }
  if (!x.is_cpu()) return tensor_ops::permute_by_inverse_out(out, x, dense, top_k, first_row);
  const int64_t rows = out.size(0), bytes = x.size(1) * x.element_size();
  const int64_t stride = x.stride(0) * x.element_size();
  const int64_t out_stride = out.stride(0) * out.element_size();
  const int64_t* row_of_slot = dense.const_data_ptr<int64_t>();
  const char* from = static_cast<const char*>(x.const_data_ptr());
  char* to = static_cast<char*>(out.mutable_data_ptr());
  for (int64_t slot = 0; slot < dense.size(0); ++slot) {
    const int64_t row = row_of_slot[slot] - first_row;
    if (row < 0 || row >= rows || bytes == 0) continue;
    std::memcpy(to + row * out_stride, from + slot / top_k * stride, bytes);
  }
}

void unpermute_out(const at::Tensor& out, std::span<const at::Tensor> chunks,
                   const at::Tensor& inverse, const at::Tensor& weights) {
  if (chunks.empty()) {
    throw Error("no rows to bring home", {.where = "unpermute rows",
                                          .expected = "at least one chunk",
                                          .found = "none",
                                          .hint = "pass an empty tensor for zero tokens"});
  }
  require_shape(weights, {-1, -1}, "unpermute weights");
  require_dtype(weights, at::kFloat, "unpermute weights");
  const int64_t tokens = weights.size(0), top_k = weights.size(1), width = chunks[0].size(-1);
  require_shape(inverse, {tokens * top_k}, "unpermute inverse");
  require_dtype(inverse, at::kLong, "unpermute inverse");
  require_shape(out, {tokens, width}, "unpermute output");
  require_dtype(out, chunks[0].scalar_type(), "unpermute output");
  for (const at::Tensor& chunk : chunks) {
    require_shape(chunk, {-1, width}, "unpermute rows");
    require_dtype(chunk, chunks[0].scalar_type(), "unpermute rows");
    require_dense_rows(chunk, "unpermute rows");
  }
  if (has_gpu_kernels(chunks[0])) {
    return cuda::unpermute_out(out, chunks, inverse.contiguous(), weights.contiguous());
  }
  if (!weights.is_cpu()) {
    const at::Tensor rows =
        chunks.size() == 1 ? chunks[0] : at::cat(at::TensorList(chunks.data(), chunks.size()));
    at::Tensor(out).copy_(tensor_ops::unpermute(rows, inverse, weights));
    return;
  }
  const std::vector<const char*> addresses = row_addresses(chunks);
  const at::Tensor dense_inverse = inverse.contiguous(), dense_weights = weights.contiguous();
  const int64_t* row_of_slot = dense_inverse.const_data_ptr<int64_t>();
  const float* weight = dense_weights.const_data_ptr<float>();
  std::vector<const char*> rows;
  std::vector<float> row_weights;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, out.scalar_type(), "unpermute", [&] {
    scalar_t* sums = out.mutable_data_ptr<scalar_t>();
    for (int64_t token = 0; token < tokens; ++token) {
      rows.clear();
      row_weights.clear();
      for (int64_t slot = token * top_k; slot < (token + 1) * top_k; ++slot) {
        const int64_t row = row_of_slot[slot];
        if (row == -1) continue;
        require_index(row, static_cast<int64_t>(addresses.size()), "unpermute inverse");
        rows.push_back(addresses[row]);
        row_weights.push_back(weight[slot]);
      }
      sum_rows<scalar_t>(sums + token * width, rows, row_weights.data(), width);
    }
  });
}

at::Tensor unpermute(std::span<const at::Tensor> chunks, const at::Tensor& inverse,
                     const at::Tensor& weights) {
  const bool empty = chunks.empty() || chunks[0].dim() == 0;
  const at::Tensor out =
      empty ? at::Tensor() : at::empty({weights.size(0), chunks[0].size(-1)}, chunks[0].options());
  unpermute_out(out, chunks, inverse, weights);
  return out;
}

at::Tensor unpermute(const at::Tensor& rows, const at::Tensor& inverse, const at::Tensor& weights) {
  return unpermute(std::span(&rows, 1), inverse, weights);
}

}  // namespace farskip
