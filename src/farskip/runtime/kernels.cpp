#include "farskip/runtime/kernels.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/add.h>
#include <ATen/ops/index_select.h>

#include <algorithm>

#include "farskip/base/error.h"
#include "farskip/cuda/norm.h"
#include "farskip/nn/attention.h"
#include "farskip/nn/attention_gradient.h"
#include "farskip/nn/gpu.h"
#include "farskip/nn/head.h"
#include "farskip/nn/linear.h"
#include "farskip/nn/loss.h"
#include "farskip/nn/mlp.h"
#include "farskip/nn/norm.h"
#include "farskip/nn/rope.h"
#include "farskip/nn/tensor_ops.h"

namespace farskip {
namespace {

void run_embedding(const KernelContext&, Inputs in, Outputs out) {
  deliver(out[0], embed(in[1], in[0]));
}

void run_rope_tables(const KernelContext& context, Inputs in, Outputs out) {
  RopeTable table = rope_cos_sin(context.model.rope, in[0]);
  deliver(out[0], std::move(table.cos));
  deliver(out[1], std::move(table.sin));
}

// out = ((a + b) + c) + ..., each sum rounded to the dtype of the stream; a block at a time, so
// that memory is read and written once however many terms there are.
template <typename scalar_t>
void sum_terms(Inputs in, const at::Tensor& out) {
  constexpr int64_t block = 4096;
  scalar_t* sums = out.mutable_data_ptr<scalar_t>();
  const int64_t count = out.numel();
  for (int64_t first = 0; first < count; first += block) {
    const int64_t last = std::min(count, first + block);
    const scalar_t* a = in[0].const_data_ptr<scalar_t>();
    std::copy(a + first, a + last, sums + first);
    for (const at::Tensor& term : in.subspan(1)) {
      const scalar_t* b = term.const_data_ptr<scalar_t>();
      for (int64_t i = first; i < last; ++i) sums[i] = sums[i] + b[i];
    }
  }
}

void sum_on_device(Inputs in, const at::Tensor& out) {
  if (has_gpu_kernels(out)) return cuda::sum_out(out, in);
  at::Tensor sum = out;
  if (in.size() == 1) sum.copy_(in[0]);
  for (size_t i = 1; i < in.size(); ++i) at::add_out(sum, i == 1 ? in[0] : sum, in[i]);
}

void check_terms(const Op& op, Inputs in, const at::Tensor& out) {
  for (const at::Tensor& term : in) {
    if (term.is_contiguous() && term.sizes() == out.sizes() &&
        term.scalar_type() == out.scalar_type()) {
      continue;
    }
    throw Error("a term does not fit the sum", {.where = describe(op),
                                                .expected = c10::str(out.sizes()),
                                                .found = c10::str(term.sizes())});
  }
}

void run_sum(const KernelContext& context, Inputs in, Outputs out) {
  check_terms(context.op, in, out[0]);
  if (!out[0].is_cpu()) return sum_on_device(in, out[0]);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, out[0].scalar_type(), "sum",
                                  [&] { sum_terms<scalar_t>(in, out[0]); });
}

void run_norm(const KernelContext& context, Inputs in, Outputs out) {
  rms_norm_out(out[0], in[0], in[1], context.model.norm_eps);
}

void run_sum_norm(const KernelContext& context, Inputs in, Outputs out) {
  const Inputs terms = in.first(in.size() - 1);
  const at::Tensor &weight = in.back(), &normed = out.back();
  const double eps = context.model.norm_eps;
  const bool stores_sum = out.size() > 1;
  if (has_gpu_kernels(normed)) {
    check_terms(context.op, terms, normed);
    const at::Tensor sum = stores_sum ? out[0] : at::Tensor();
    return cuda::sum_rms_norm_out(sum, normed, terms, weight, eps);
  }
  at::Tensor sum = stores_sum ? out[0] : at::empty_like(normed);
  run_sum(context, terms, {&sum, 1});
  rms_norm_out(normed, sum, weight, eps);
}

void run_attention_prepare(const KernelContext& context, Inputs in, Outputs out) {
  const AttentionWeights weights = attention_weights(context.model.attention, in.subspan(3));
  AttentionPrepared made;
  if (out.size() > 3) {
    made = attention_prepare_saving(context.model, weights, in[0], {in[1], in[2]});
    deliver(out[3], std::move(made.first));
  } else {
    made.inputs = attention_prepare(context.model, weights, in[0], {in[1], in[2]});
  }
  deliver(out[0], std::move(made.inputs.q));
  deliver(out[1], std::move(made.inputs.k));
  deliver(out[2], std::move(made.inputs.v));
}

void run_attention_core(const KernelContext& context, Inputs in, Outputs out) {
  const AttentionInputs inputs{in[0], in[1], in[2]};
  const double scale = context.model.softmax_scale();
  if (out.size() > 1) {
    AttentionSaved made = attention_core_saving(inputs, context.lengths, scale);
    deliver(out[0], std::move(made.out));
    return deliver(out[1], std::move(made.log_sum_exp));
  }
  if (out[0].defined()) return attention_core_out(out[0], inputs, context.lengths, scale);
  out[0] = attention_core(inputs, context.lengths, scale);
}

void run_linear(const KernelContext&, Inputs in, Outputs out) { linear_out(out[0], in[0], in[1]); }

void run_swiglu(const KernelContext&, Inputs in, Outputs out) {
  if (out.size() == 1) return swiglu_out(out[0], in[0], in[1], in[2]);
  swiglu_saving_out(out[0], out[1], in[0], in[1], in[2]);
}

// The last row of each sequence.
at::Tensor last_rows(const at::Tensor& rows, const std::vector<int64_t>& lengths) {
  const auto count = static_cast<int64_t>(lengths.size());
  if (std::ranges::all_of(lengths, [&](int64_t length) { return length == lengths[0]; })) {
    return rows.unflatten(0, {count, lengths[0]}).select(1, lengths[0] - 1);
  }
  at::Tensor last = at::empty({count}, at::kLong);
  int64_t end = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    end += lengths[i];
    last.mutable_data_ptr<int64_t>()[i] = end - 1;
  }
  return at::index_select(rows, 0, tensor_ops::to_device(last, rows.device()));
}

// Of the rows that the head reads: all, or the last one of each sequence.
void run_final_norm(const KernelContext& context, Inputs in, Outputs out) {
  const bool all = out[0].size(0) == in[0].size(0);
  const at::Tensor rows = all ? in[0] : last_rows(in[0], context.lengths);
  rms_norm_out(out[0], rows, in[1], context.model.norm_eps);
}

void run_head(const KernelContext&, Inputs in, Outputs out) {
  if (in[0].scalar_type() == out[0].scalar_type()) {
    linear_out(out[0], in[0], in[1]);
  } else {
    out[0].copy_(linear(in[0], in[1]));
  }
}

void run_loss(const KernelContext&, Inputs in, Outputs out) {
  CrossEntropy made = cross_entropy(in[0], in[1], in[2]);
  deliver(out[0], std::move(made.loss));
  if (out.size() > 1) deliver(out[1], std::move(made.log_sum_exp));
}

Work launch_all_reduce(const KernelContext& context, Group& group, Inputs in, Outputs out) {
  // Stages have graphs of their own, and number their ops each for itself.
  const Attributes& a = context.op.attributes;
  const Tag tag = is_between_stages(a) ? a.message : context.op.id;
  return group.all_reduce(out[0], in[0], tag, context.ready);
}

Work launch_send(const KernelContext& context, Group& group, Inputs in, Outputs) {
  const Attributes& a = context.op.attributes;
  return group.send(in[0], a.peer, a.message, context.ready);
}

Work launch_receive(const KernelContext& context, Group& group, Inputs, Outputs out) {
  const Attributes& a = context.op.attributes;
  return group.receive(out[0], a.peer, a.message, context.ready);
}

}  // namespace

AttentionWeights attention_weights(const AttentionConfig& config, Inputs in) {
  AttentionWeights weights;
  size_t next = 0;
  if (config.kind == AttentionConfig::Kind::latent) {
    weights.q_kv_a = in[next++];
    if (config.q_lora_rank > 0) {
      weights.q_a_norm = in[next++];
      weights.q_b = in[next++];
    }
    weights.kv_a_norm = in[next++];
    weights.kv_b = in[next++];
    return weights;
  }
  weights.qkv = in[next++];
  if (config.qk_norm == AttentionConfig::QkNorm::per_head ||
      config.qk_norm == AttentionConfig::QkNorm::all_heads) {
    weights.q_norm = in[next++];
    weights.k_norm = in[next++];
  }
  return weights;
}

KernelTable step_kernels() {
  KernelTable table;
  table.add(OpKind::embedding, making(run_embedding));
  table.add(OpKind::rope_tables, making(run_rope_tables));
  table.add(OpKind::sum, recordable({.kernel = run_sum}));
  table.add(OpKind::norm, recordable({.kernel = run_norm}));
  table.add(OpKind::sum_norm, recordable({.kernel = run_sum_norm}));
  table.add(OpKind::attention_prepare, recordable(making(run_attention_prepare)));
  table.add(OpKind::attention_core, recordable(making(run_attention_core)));
  table.add(OpKind::output_projection, recordable({.kernel = run_linear}));
  table.add(OpKind::shared_experts, recordable({.kernel = run_swiglu}));
  table.add(OpKind::dense_mlp, recordable({.kernel = run_swiglu}));
  table.add(OpKind::all_reduce, launch_all_reduce);
  table.add(OpKind::send, launch_send);
  table.add(OpKind::receive, launch_receive);
  table.add(OpKind::final_norm, run_final_norm);
  table.add(OpKind::head, run_head);
  table.add(OpKind::loss, making(run_loss));
  add_routing_kernels(table);
  add_exchange_kernels(table);
  add_arrival_kernels(table);
  add_gradient_kernels(table);
  return table;
}

}  // namespace farskip
