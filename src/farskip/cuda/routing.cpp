#include "farskip/cuda/routing.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <c10/cuda/CUDAGuard.h>

#include "farskip/base/error.h"
#include "farskip/cuda/check.h"
#include "farskip/cuda/permutation_kernels.h"
#include "farskip/cuda/routing_kernels.h"

namespace farskip::cuda {
namespace {

void require_at_most(int64_t found, int64_t most, const char* what) {
  if (found >= 1 && found <= most) return;
  throw UnsupportedError("there is no kernel for this routing",
                         {.where = what,
                          .expected = "1 to " + std::to_string(most),
                          .found = std::to_string(found),
                          .hint = {}});
}

void require_slots(int64_t tokens, int64_t top_k) {
  require_at_most(top_k, max_choices, "routing top_k");
  require_at_most(tokens * top_k + 1, int64_t{1} << 31, "routing slots");
}

void require_rule(const RouterRule& rule) {
  require_at_most(rule.experts, max_experts, "router.experts");
  require_at_most(rule.groups, max_groups, "router.groups");
  require_at_most(rule.kept_groups, rule.groups, "router.kept_groups");
  require_at_most(rule.top_k, rule.experts / rule.groups * rule.kept_groups, "router.top_k");
}

ChooseArguments choose_arguments(const RoutingOut& out, const RouterRule& rule,
                                 const at::Tensor& logits, const at::Tensor& bias) {
  require_rule(rule);
  require_on_gpu(logits, {-1, rule.experts}, "router logits");
  require_contiguous(logits, "router logits");
  const int64_t tokens = logits.size(0);
  require_slots(tokens, rule.top_k);
  require_on_gpu(out.experts, {tokens, rule.top_k}, at::kLong, "expert ids");
  require_contiguous(out.experts, "expert ids");
  require_on_gpu(out.weights, {tokens, rule.top_k}, at::kFloat, "routing weights");
  require_contiguous(out.weights, "routing weights");
  if (bias.defined()) {
    require_on_gpu(bias, {rule.experts}, at::kFloat, "router bias");
    require_contiguous(bias, "router bias");
  }
  require_one_device("choose_experts", {logits, bias, out.experts, out.weights});
  return {.logits = logits.const_data_ptr(),
          .bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr,
          .experts = out.experts.mutable_data_ptr<int64_t>(),
          .weights = out.weights.mutable_data_ptr<float>(),
          .rule = rule};
}

struct Plan {
  PlanArguments arguments;
  at::Tensor scratch;
};

// Checks, and makes the scratch space; with the tensors' device as the current one.
Plan plan_arguments(const PlanOut& out, const at::Tensor& experts, const at::Tensor& positions) {
  require_on_gpu(experts, {-1, -1}, at::kLong, "expert ids");
  require_contiguous(experts, "expert ids");
  require_slots(experts.size(0), experts.size(1));
  require_on_gpu(positions, {-1}, at::kLong, "position_of_expert");
  require_contiguous(positions, "position_of_expert");
  const int64_t count = positions.size(0);
  require_at_most(count, max_experts, "position_of_expert");
  require_on_gpu(out.order, {experts.numel()}, at::kLong, "plan order");
  require_on_gpu(out.inverse, {experts.numel()}, at::kLong, "plan inverse");
  require_on_gpu(out.counts, {count}, at::kLong, "plan counts");
  require_one_device("make_plan", {experts, positions, out.order, out.inverse, out.counts});
  for (const at::Tensor& tensor : {out.order, out.inverse, out.counts}) {
    require_contiguous(tensor, "plan");
  }
  const at::Tensor scratch =
      at::empty({plan_blocks(experts.size(0)), count}, experts.options().dtype(at::kInt));
  return {{.experts = experts.const_data_ptr<int64_t>(),
           .position_of_expert = positions.const_data_ptr<int64_t>(),
           .order = out.order.mutable_data_ptr<int64_t>(),
           .inverse = out.inverse.mutable_data_ptr<int64_t>(),
           .counts = out.counts.mutable_data_ptr<int64_t>(),
           .block_counts = scratch.mutable_data_ptr<int>(),
           .expert_count = static_cast<int>(count)},
          scratch};
}

}  // namespace

at::Tensor router_logits(const at::Tensor& x, const at::Tensor& weight, bool fp32) {
  require_on_gpu(x, {-1, -1}, "router input");
  require_on_gpu(weight, {-1, x.size(1)}, x.scalar_type(), "router weight");
  const bool widens = element_of(x, "router input") == Element::bf16 && fp32;
  if (x.size(0) == 0) {
    return at::empty({0, weight.size(0)}, x.options().dtype(fp32 ? at::kFloat : x.scalar_type()));
  }
  return widens ? at::mm(x, weight.t(), at::kFloat) : at::mm(x, weight.t());
}

void choose_experts_out(const RoutingOut& out, const RouterRule& rule, const at::Tensor& logits,
                        const at::Tensor& correction_bias) {
  const ChooseArguments arguments = choose_arguments(out, rule, logits, correction_bias);
  const Element element = element_of(logits, "router logits");
  if (logits.size(0) == 0) return;
  const c10::cuda::CUDAGuard guard(logits.device());
  launch_choose(element, arguments, logits.size(0), stream_of(logits));
}

void make_plan_out(const PlanOut& out, const at::Tensor& experts,
                   const at::Tensor& position_of_expert) {
  require_on_gpu(experts, {-1, -1}, "expert ids");
  const c10::cuda::CUDAGuard guard(experts.device());
  const Plan plan = plan_arguments(out, experts, position_of_expert);
  launch_plan(plan.arguments, experts.size(0), static_cast<int>(experts.size(1)),
              stream_of(experts));
}

void choose_and_plan_out(const RoutingOut& routing, const PlanOut& plan, const RouterRule& rule,
                         const at::Tensor& logits, const at::Tensor& correction_bias,
                         const at::Tensor& position_of_expert) {
  const ChooseArguments choice = choose_arguments(routing, rule, logits, correction_bias);
  const Element element = element_of(logits, "router logits");
  require_on_gpu(position_of_expert, {rule.experts}, "position_of_expert");
  const c10::cuda::CUDAGuard guard(logits.device());
  const Plan placed = plan_arguments(plan, routing.experts, position_of_expert);
  launch_choose_and_plan(element, choice, placed.arguments, logits.size(0), stream_of(logits));
}

}  // namespace farskip::cuda
