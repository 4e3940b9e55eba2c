#include "farskip/train/update_kernels.h"

#include <cmath>

#include "farskip/base/error.h"
#include "farskip/train/gradient_norm.h"
#include "farskip/train/on_stream.h"
#include "farskip/train/training_state.h"

namespace farskip {
namespace {

TrainingState& training_state_of(const KernelContext& context) {
  auto* state = dynamic_cast<TrainingState*>(context.state);
  if (state == nullptr) {
    throw Error("an update needs a TrainingState", {.where = describe(context.op)});
  }
  return *state;
}

const StoredBucket& bucket_of(const KernelContext& context) {
  return training_state_of(context).store().buckets().at(context.op.attributes.bucket);
}

Work launch_reduce_gradients(const KernelContext& context, Group& group, Inputs, Outputs out) {
  return group.reduce_scatter(out[0], bucket_of(context).gradients, context.op.id, context.ready);
}

Work launch_gather_parameters(const KernelContext& context, Group& group, Inputs in, Outputs) {
  return group.all_gather(bucket_of(context).parameters, in[0], context.op.id, context.ready);
}

// Every rank that has the same experts, `elements` each: rank r has those of r % placement ranks.
std::vector<int64_t> among_holders(const KernelContext& context, const Group& group,
                                   int64_t elements) {
  std::vector<int64_t> rows(static_cast<size_t>(group.size()), 0);
  for (int rank = context.rank; rank < group.size(); rank += context.placement.ranks()) {
    rows[static_cast<size_t>(rank)] = elements;
  }
  return rows;
}

Work launch_exchange_gradients(const KernelContext& context, Group& group, Inputs, Outputs out) {
  const StoredBucket& bucket = bucket_of(context);
  const std::vector<int64_t> rows = among_holders(context, group, bucket.m.size(0));
  return group.all_to_all(out[0], bucket.gradients, rows, rows, context.op.id, context.ready);
}

// In the order of ranks, so that all have the same bits.
void run_sum_gradients(const KernelContext&, Inputs in, Outputs out) {
  const int64_t elements = out[0].size(0);
  out[0].copy_(in[0].narrow(0, 0, elements));
  for (int64_t first = elements; first < in[0].size(0); first += elements) {
    out[0].add_(in[0].narrow(0, first, elements));
  }
}

Work launch_spread_parameters(const KernelContext& context, Group& group, Inputs in, Outputs) {
  const StoredBucket& bucket = bucket_of(context);
  const std::vector<int64_t> rows = among_holders(context, group, bucket.m.size(0));
  const int64_t holders = group.size() / context.placement.ranks();
  const auto [copies, ready] =
      on_stream_of(group, context.ready, [&] { return in[0].repeat({holders}); });
  return group.all_to_all(bucket.parameters, copies, rows, rows, context.op.id, ready);
}

void run_gradient_norm(const KernelContext&, Inputs in, Outputs out) {
  out[0].fill_(sum_of_squares(in));
}

// in: this rank's part, or all gradients; the sum of squares.
void run_update(const KernelContext& context, Inputs in, Outputs out) {
  TrainingState& state = training_state_of(context);
  const StoredBucket& bucket = bucket_of(context);
  const double squares = rounded_squares(in.back());
  const bool parts = !out.empty();
  if (!std::isfinite(squares)) {
    if (parts) out[0].copy_(bucket.master);
    return;
  }
  const at::Tensor& gradients = parts ? in[0] : bucket.gradients;
  const at::Tensor parameters = parts                       ? out[0]
                                : bucket.updates_in_place() ? at::Tensor()
                                                            : bucket.parameters;
  AdamwStep step{.learning_rate = state.learning_rate,
                 .beta1 = state.optimizer().beta1,
                 .beta2 = state.optimizer().beta2,
                 .epsilon = state.optimizer().epsilon,
                 .gradient_scale = clip_factor(squares, state.max_norm()),
                 .step = state.update};
  for (const UpdateRun& run : bucket.runs) {
    auto part = [&](const at::Tensor& x) {
      return x.defined() ? x.narrow(0, run.first, run.entry.count) : x;
    };
    step.weight_decay = weight_decay_of(run.role, state.optimizer());
    adamw_step(part(bucket.master), part(bucket.m), part(bucket.v), part(gradients),
               part(parameters), step);
  }
  if (!parts) return;
  const int64_t used =
      bucket.runs.empty() ? 0 : bucket.runs.back().first + bucket.runs.back().entry.count;
  out[0].narrow(0, used, out[0].size(0) - used).zero_();
}

}  // namespace

void add_update_kernels(KernelTable& table) {
  table.add(OpKind::reduce_gradients, launch_reduce_gradients);
  table.add(OpKind::gather_parameters, launch_gather_parameters);
  table.add(OpKind::exchange_gradients, launch_exchange_gradients);
  table.add(OpKind::sum_gradients, run_sum_gradients);
  table.add(OpKind::spread_parameters, launch_spread_parameters);
  table.add(OpKind::gradient_norm, run_gradient_norm);
  table.add(OpKind::update, run_update);
}

}  // namespace farskip
