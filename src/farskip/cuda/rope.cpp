#include "farskip/cuda/rope.h"

#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <string>

#include "farskip/base/error.h"
#include "farskip/cuda/check.h"
#include "farskip/cuda/rope_kernels.h"

namespace farskip::cuda {
namespace {

void refuse_size(const char* what, const std::string& expected, int64_t found) {
  throw UnsupportedError(
      "there is no kernel for these heads",
      {.where = what, .expected = expected, .found = std::to_string(found), .hint = {}});
}

void refuse_pairs(int64_t size, int64_t pairs) {
  throw Error("rope rotates more dimensions than a head has",
              {.where = "rope cos",
               .expected = "at most " + std::to_string(size / 2) + " pairs",
               .found = std::to_string(pairs),
               .hint = {}});
}

void require_tables(const at::Tensor& cos, const at::Tensor& sin, int64_t tokens) {
  require_on_gpu(cos, {tokens, -1}, at::kFloat, "rope cos");
  require_on_gpu(sin, cos.sizes(), at::kFloat, "rope sin");
  require_contiguous(cos, "rope cos");
  require_contiguous(sin, "rope sin");
}

// x [T, heads, size] of one dtype with a dense last dimension.
void require_heads(const at::Tensor& x, at::IntArrayRef shape, at::ScalarType dtype,
                   const char* name) {
  require_on_gpu(x, shape, dtype, name);
  require_dense_rows(x, name);
}

Heads heads_of(const at::Tensor& x, const at::Tensor& norm, const char* name) {
  const bool normed = norm.defined();
  if (normed) {
    require_on_gpu(norm, {x.size(2)}, x.scalar_type(), name);
    require_contiguous(norm, name);
  }
  return {.data = x.mutable_data_ptr(),
          .norm = normed ? norm.const_data_ptr() : nullptr,
          .token_stride = x.stride(0),
          .head_stride = x.stride(1),
          .count = static_cast<int>(x.size(1))};
}

}  // namespace

void rope_table_out(const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& positions,
                    std::span<const float> radians, float magnitude) {
  require_on_gpu(positions, {-1}, at::kLong, "rope positions");
  require_contiguous(positions, "rope positions");
  require_on_gpu(cos, {-1, static_cast<int64_t>(radians.size())}, at::kFloat, "rope cos");
  require_tables(cos, sin, positions.size(0));
  require_one_device("rope_table", {positions, cos, sin});
  if (radians.size() > max_frequencies) {
    refuse_size("rope frequencies", "at most " + std::to_string(max_frequencies),
                static_cast<int64_t>(radians.size()));
  }
  if (cos.numel() == 0) return;
  RopeTableArguments arguments{.cos = cos.mutable_data_ptr<float>(),
                               .sin = sin.mutable_data_ptr<float>(),
                               .positions = positions.const_data_ptr<int64_t>(),
                               .tokens = positions.size(0),
                               .pairs = static_cast<int>(radians.size()),
                               .magnitude = magnitude,
                               .radians = {}};
  std::ranges::copy(radians, arguments.radians);
  const c10::cuda::CUDAGuard guard(cos.device());
  launch_rope_table(arguments, stream_of(cos));
}

void grouped_rope_(const at::Tensor& q, const at::Tensor& k, const at::Tensor& q_norm,
                   const at::Tensor& k_norm, double eps, const at::Tensor& cos,
                   const at::Tensor& sin, bool interleaved) {
  require_on_gpu(q, {-1, -1, -1}, "rope q");
  const int64_t tokens = q.size(0), size = q.size(2), heads = q.size(1);
  require_heads(q, {tokens, heads, size}, q.scalar_type(), "rope q");
  require_heads(k, {tokens, -1, size}, q.scalar_type(), "rope k");
  require_tables(cos, sin, tokens);
  if (2 * cos.size(1) > size) refuse_pairs(size, cos.size(1));
  if (size % 2 != 0 || size > max_head_size) {
    refuse_size("rope q", "an even size of at most " + std::to_string(max_head_size), size);
  }
  const int64_t count = tokens * (heads + k.size(1));
  if (count > int64_t{1} << 25) refuse_size("rope q", "at most 2^25 heads of all tokens", count);
  require_one_device("grouped_rope", {q, k, q_norm, k_norm, cos, sin});
  const Element element = element_of(q, "rope q");
  if (count == 0 || size == 0) return;
  const c10::cuda::CUDAGuard guard(q.device());
  launch_grouped_rope(element,
                      {.q = heads_of(q, q_norm, "rope q_norm"),
                       .k = heads_of(k, k_norm, "rope k_norm"),
                       .cos = cos.const_data_ptr<float>(),
                       .sin = sin.const_data_ptr<float>(),
                       .tokens = tokens,
                       .size = static_cast<int>(size),
                       .pairs = static_cast<int>(cos.size(1)),
                       .eps = static_cast<float>(eps),
                       .interleaved = interleaved},
                      stream_of(q));
}

void latent_rope_(const at::Tensor& q, const at::Tensor& k, const at::Tensor& k_rope,
                  const at::Tensor& cos, const at::Tensor& sin, bool interleaved) {
  require_on_gpu(q, {-1, -1, -1}, "rope q");
  const int64_t tokens = q.size(0), heads = q.size(1), size = q.size(2);
  require_tables(cos, sin, tokens);
  const int64_t rotated = 2 * cos.size(1), nope = size - rotated;
  if (nope < 0) refuse_pairs(size, cos.size(1));
  require_heads(q, {tokens, heads, size}, q.scalar_type(), "rope q");
  require_heads(k, {tokens, heads, size}, q.scalar_type(), "rope k");
  require_heads(k_rope, {tokens, rotated}, q.scalar_type(), "rope k_rope");
  require_one_device("latent_rope", {q, k, k_rope, cos, sin});
  const Element element = element_of(q, "rope q");
  require_few_packs(tokens * heads, rotated + 32, element, "rope q");
  if (q.numel() == 0 || rotated == 0) return;
  const c10::cuda::CUDAGuard guard(q.device());
  launch_latent_rope(element,
                     {.q = heads_of(q.narrow(2, nope, rotated), {}, "rope q"),
                      .k = heads_of(k.narrow(2, nope, rotated), {}, "rope k"),
                      .k_rope = k_rope.const_data_ptr(),
                      .cos = cos.const_data_ptr<float>(),
                      .sin = sin.const_data_ptr<float>(),
                      .rope_token_stride = k_rope.stride(0),
                      .tokens = tokens,
                      .pairs = static_cast<int>(cos.size(1)),
                      .interleaved = interleaved},
                     stream_of(q));
}

}  // namespace farskip::cuda
