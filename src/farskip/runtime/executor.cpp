#include "farskip/runtime/executor.h"

#include <ATen/core/grad_mode.h>
#include <c10/util/SmallVector.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>

#include "farskip/base/error.h"
#include "farskip/base/random.h"
#include "farskip/runtime/bind_weights.h"
#include "farskip/runtime/compute_lane.h"
#include "farskip/runtime/op_plan.h"
#include "farskip/runtime/sizes.h"
#include "farskip/simulate/simulate.h"

namespace farskip {
namespace {

using Shape = c10::SmallVector<int64_t, 4>;

// When an op of the compute lane ran: by the host's clock on a CPU, by events on a device.
struct ComputeTimes {
  Clock::time_point start, end;
  Event begun, done;
};

int64_t elements(const Shape& shape) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return count;
}

double seconds_since(Clock::time_point start, Clock::time_point time) {
  return std::chrono::duration<double>(time - start).count();
}

}  // namespace

class Executor::Impl {
 public:
  Impl(const ModelConfig& model, const Placement& placement, const Graph& graph,
       const KernelTable& kernels, const Weights& weights, Group& group, ExecutorOptions options)
      : model_(model),
        placement_(placement),
        graph_(graph),
        group_(group),
        options_(options),
        lane_(group.device()),
        plans_(plan_ops(graph, kernels)),
        sizes_(graph, placement, group.rank()),
        tensors_(graph.values().size()),
        works_(graph.ops().size()),
        sizes_known_(graph.ops().size(), false),
        host_(graph.values().size()),
        copied_(graph.ops().size()),
        awaited_(graph.ops().size(), false),
        compute_times_(graph.ops().size()),
        random_(options.chaos_seed.value_or(0) * 1000003 + static_cast<uint64_t>(group.rank())) {
    check_ranks();
    bind_weights(graph, sizes_, weights, tensors_);
  }

  StepResult run(const Schedule& schedule, const Batch& batch) {
    if (schedule.graph_hash != graph_.hash()) {
      throw ScheduleError("the schedule is for another graph",
                          {.where = schedule.name, .expected = graph_.description()});
    }
    const at::NoGradGuard no_gradients;
    const auto on_own_stream = lane_.use();
    begin(schedule, batch);
    const Traffic before = group_.traffic();
    const Clock::time_point start = Clock::now();
    origin_ = lane_.mark(true);
    run_steps(schedule.steps);
    const double launching = seconds_since(start, Clock::now()) - waited_;
    for (const Work& work : works_) {
      if (work.valid()) work.synchronize();
    }
    const Event end = lane_.mark(true);
    await(end);
    StepResult result = finish(start, before);
    if (end.valid()) {
      result.timeline.step_seconds = end.seconds_since(origin_);
      result.host_seconds = launching;
      result.host_waits = host_waits_;
    }
    return result;
  }

 private:
  void check_ranks() const {
    auto require = [&](int found, const std::string& where) {
      if (found == group_.size()) return;
      throw ConfigError("made for another number of ranks than the group has",
                        {.where = where,
                         .expected = std::to_string(group_.size()),
                         .found = std::to_string(found)});
    };
    require(placement_.ranks(), "placement");
    for (const Op& op : graph_.ops()) {
      if (op.lane == Lane::communication) require(op.attributes.ranks, describe(op));
    }
  }

  void begin(const Schedule& schedule, const Batch& batch) {
    std::fill(awaited_.begin(), awaited_.end(), false);
    for (const Step& step : schedule.steps) {
      for (OpId op : step.wait_for) awaited_[op] = true;
    }
    sizes_.start(batch.lengths);
    for (const Value& value : graph_.values()) {
      if (value.kind == ValueKind::activation) tensors_[value.id].reset();
      if (value.kind == ValueKind::input) bind_input(value, batch);
    }
    std::fill(works_.begin(), works_.end(), Work());
    std::fill(sizes_known_.begin(), sizes_known_.end(), false);
    std::fill(host_.begin(), host_.end(), at::Tensor());
    std::fill(copied_.begin(), copied_.end(), std::nullopt);
    std::fill(compute_times_.begin(), compute_times_.end(), ComputeTimes());
    bytes_ = peak_bytes_ = 0;
    waited_ = 0;
    host_waits_ = 0;
  }

  void bind_input(const Value& value, const Batch& batch) {
    const auto found = batch.inputs.find(value.name);
    const int64_t tokens = sizes_.first_token(graph_.micro_batches());
    if (found == batch.inputs.end() || found->second.dim() < 1 || found->second.size(0) != tokens) {
      throw Error(
          "the batch lacks an input, or has one of another length",
          {.where = value.name,
           .expected = std::to_string(tokens) + " rows",
           .found = found == batch.inputs.end() ? "none" : c10::str(found->second.sizes())});
    }
    const int micro_batch = graph_.symbol(value.shape.at(0).symbol).micro_batch;
    tensors_[value.id] = queue_copy_to_device(
        found->second.narrow(0, sizes_.first_token(micro_batch), sizes_.tokens(micro_batch)),
        lane_.device());
  }

  // In the schedule's order, lane by lane. On a device the host need not stand still at a
  // collective whose sizes it does not know yet.
  void run_steps(const std::vector<Step>& steps) {
    done_.assign(steps.size(), false);
    size_t freed = 0;
    for (size_t next = 0; next < steps.size(); ++next) {
      if (!done_[next]) {
        if (lane_.queues() && steps[next].lane == Lane::communication) run_ahead(steps, next);
        run_step(steps[next]);
        done_[next] = true;
      }
      // What runs ahead frees nothing that a step before it still reads.
      for (; freed < steps.size() && done_[freed]; ++freed) {
        for (ValueId id : steps[freed].free_after) release(id);
      }
    }
  }

  // Queues compute ops behind step `next` until its sizes are known, or the next one must wait.
  void run_ahead(const std::vector<Step>& steps, size_t next) {
    const auto known = [&](const Step& step) {
      const auto& binders = plans_[step.op].sizes_from;
      return std::all_of(binders.begin(), binders.end(), [&](OpId op) { return is_known(op); });
    };
    for (size_t i = next + 1; i < steps.size() && !known(steps[next]); ++i) {
      const Step& step = steps[i];
      if (done_[i] || step.lane == Lane::communication) continue;
      const bool free = std::all_of(step.wait_for.begin(), step.wait_for.end(),
                                    [&](OpId op) { return works_[op].valid(); });
      if (!free || !known(step)) return;
      run_step(step);
      done_[i] = true;
    }
  }

  void run_step(const Step& step) {
    const OpPlan& plan = plans_[step.op];
    for (OpId binder : plan.sizes_from) learn_sizes(binder);
    if (options_.chaos_seed) sleep_at_random();
    if (plan.op->lane == Lane::communication) {
      launch(plan, ready_behind(step));
    } else {
      for (OpId awaited : step.wait_for) {
        if (works_[awaited].valid()) works_[awaited].wait(lane_.stream());
      }
      if (plan.op->kind != OpKind::join) compute(plan);
    }
    if (plan.op->host_waits && plan.op->lane == Lane::compute) learn_sizes(step.op);
    in_.clear();
    host_in_.clear();
    out_.clear();
  }

  KernelContext context_of(const OpPlan& plan) const {
    const int micro_batch = plan.op->attributes.micro_batch;
    return {.model = model_,
            .placement = placement_,
            .rank = group_.rank(),
            .op = *plan.op,
            .lengths = plan.by_sequences ? sizes_.lengths_of_part(plan.piece)
                                         : sizes_.lengths(micro_batch),
            .first_token = sizes_.first_token(micro_batch),
            .state = options_.state,
            .host_in = host_in_};
  }

  // Lanes are first in, first out, and a schedule names what was launched last first.
  Event ready_behind(const Step& step) const {
    return step.wait_for.empty() ? Event() : compute_times_[step.wait_for.front()].done;
  }

  void launch(const OpPlan& plan, Event ready) {
    gather_inputs(plan);
    prepare_outputs(plan);
    KernelContext context = context_of(plan);
    context.ready = std::move(ready);
    works_[plan.op->id] = plan.entry->launch(context, group_, in_, out_);
    for (const at::Tensor& tensor : in_) lane_.keep_for(tensor, group_.stream());
    for (size_t i = 0; i < out_.size(); ++i) {
      lane_.keep_for(out_[i], lane_.stream());
      tensors_[plan.outputs[i].value] = out_[i];
    }
  }

  const at::Tensor& host_copy(ValueId id) const {
    return lane_.queues() ? host_[id] : tensors_[id];
  }

  void compute(const OpPlan& plan) {
    ComputeTimes& times = compute_times_[plan.op->id];
    if (lane_.queues() && options_.timeline) times.begun = lane_.mark(true);
    times.start = Clock::now();
    gather_inputs(plan);
    if (prepare_outputs(plan)) {
      plan.entry->kernel(context_of(plan), in_, out_);
      if (plan.entry->makes_outputs) check_made(plan);
    }
    for (size_t i = 0; i < out_.size(); ++i) {
      tensors_[plan.outputs[i].value] = std::move(out_[i]);
    }
    times.end = Clock::now();
    if (lane_.queues() && (options_.timeline || awaited_[plan.op->id])) {
      times.done = lane_.mark(options_.timeline);
    }
  }

  void gather_inputs(const OpPlan& plan) {
    in_.clear();
    host_in_.clear();
    for (const InputPlan& input : plan.inputs) {
      host_in_.push_back(host_copy(input.value));
      const at::Tensor& whole = tensors_[input.value];
      if (input.cut) {
        in_.push_back(whole.narrow(0, sizes_.offset(plan.piece), sizes_.of({1, plan.piece})));
      } else {
        in_.push_back(whole);
      }
    }
  }

  // Fills out_ and shapes_; false if there is nothing to compute.
  bool prepare_outputs(const OpPlan& plan) {
    out_.clear();
    shapes_.resize(plan.outputs.size());
    bool any = plan.outputs.empty();
    for (size_t i = 0; i < plan.outputs.size(); ++i) {
      shape_of(*plan.outputs[i].shape, shapes_[i]);
      any |= elements(shapes_[i]) > 0;
    }
    for (size_t i = 0; i < plan.outputs.size(); ++i) {
      const OutputPlan& output = plan.outputs[i];
      if (output.whole != none) {
        out_.push_back(part(output, shapes_[i][0], stream_of(plan)));
        continue;
      }
      count_bytes(shapes_[i], output.type);
      const bool kernel_makes_it = any && plan.entry->makes_outputs;
      out_.push_back(kernel_makes_it ? at::Tensor()
                                     : lane_.allocate(shapes_[i], output.type, stream_of(plan)));
    }
    return any;
  }

  const c10::Stream& stream_of(const OpPlan& plan) const {
    return plan.op->lane == Lane::communication ? communication_ : lane_.stream();
  }

  // Its rows of the whole, which the first part to run allocates.
  at::Tensor part(const OutputPlan& output, int64_t rows, const c10::Stream& stream) {
    at::Tensor& whole = tensors_[output.whole];
    if (!whole.defined()) {
      Shape shape;
      shape_of(*output.whole_shape, shape);
      count_bytes(shape, output.whole_type);
      whole = lane_.allocate(shape, output.whole_type, stream);
    }
    int64_t offset = 0;
    for (const Dim& dim : output.before) offset += sizes_.of(dim);
    return whole.narrow(0, offset, rows);
  }

  void shape_of(const std::vector<Dim>& dims, Shape& shape) const {
    shape.clear();
    for (const Dim& dim : dims) shape.push_back(sizes_.of(dim));
  }

  void check_made(const OpPlan& plan) const {
    for (size_t i = 0; i < out_.size(); ++i) {
      if (out_[i].defined() && out_[i].sizes() == at::IntArrayRef(shapes_[i]) &&
          out_[i].scalar_type() == plan.outputs[i].type) {
        continue;
      }
      throw GraphError("a kernel made an output of another shape or dtype than the graph says",
                       {.where = describe(*plan.op) + ", output " + std::to_string(i),
                        .expected = c10::str(at::IntArrayRef(shapes_[i])) + " " +
                                    c10::toString(plan.outputs[i].type),
                        .found = out_[i].defined() ? c10::str(out_[i].sizes()) + " " +
                                                         c10::toString(out_[i].scalar_type())
                                                   : "none"});
    }
  }

  // Waits for an op that binds sizes and reads them. On a device the values that it read and wrote
  // are copied to the host beside whatever the compute lane has queued.
  void learn_sizes(OpId binder) {
    if (sizes_known_[binder]) return;
    const OpPlan& plan = plans_[binder];
    if (lane_.queues()) {
      begin_copy_to_host(plan);
      await(*copied_[binder]);
    } else if (works_[binder].valid()) {
      works_[binder].synchronize();
    }
    std::vector<at::Tensor> in, out;
    for (const InputPlan& input : plan.inputs) in.push_back(host_copy(input.value));
    for (const OutputPlan& output : plan.outputs) out.push_back(host_copy(output.value));
    const KernelContext context = context_of(plan);
    for (SymbolId symbol : plan.binds) {
      sizes_.bind(symbol, plan.entry->bind(context, graph_.symbol(symbol), in, out));
    }
    sizes_known_[binder] = true;
  }

  // Whether learn_sizes would not wait. Takes the first step towards that where it can.
  bool is_known(OpId binder) {
    if (sizes_known_[binder]) return true;
    const Work& work = works_[binder];
    if (!work.valid() || (!copied_[binder] && !work.done())) return false;
    begin_copy_to_host(plans_[binder]);
    return copied_[binder]->done();
  }

  void begin_copy_to_host(const OpPlan& plan) {
    if (copied_[plan.op->id]) return;
    const auto guard = lane_.use(lane_.copy_stream());
    if (works_[plan.op->id].valid()) {
      works_[plan.op->id].wait(lane_.copy_stream());
    } else {
      lane_.mark(false).block(lane_.copy_stream());
    }
    for (const InputPlan& input : plan.inputs) {
      host_[input.value] = queue_copy_to_host(tensors_[input.value]);
    }
    for (const OutputPlan& output : plan.outputs) {
      host_[output.value] = queue_copy_to_host(tensors_[output.value]);
    }
    copied_[plan.op->id] = Event::record(lane_.copy_stream());
  }

  // Blocks the host until the event is passed, a collective has failed or the deadline is over. A
  // stream that waits for a failed collective may never get there, so the host only asks.
  void await(const Event& event) {
    if (event.done()) return;
    const Clock::time_point begin = Clock::now();
    ++host_waits_;
    event.await([&] {
      for (const Work& work : works_) {
        if (work.valid() && work.error()) std::rethrow_exception(work.error());
      }
      if (Clock::now() - begin < options_.deadline) return false;
      throw CommError(
          "the deadline passed",
          {.where = "rank " + std::to_string(group_.rank()) + ", " + graph_.description(),
           .expected =
               "the device to finish within " + std::to_string(options_.deadline.count()) + " s"});
    });
    waited_ += seconds_since(begin, Clock::now());
  }

  void release(ValueId id) {
    at::Tensor& tensor = tensors_[id];
    if (tensor.defined() && graph_.value(id).part_of == none) {
      bytes_ -= static_cast<int64_t>(tensor.nbytes());
    }
    tensor.reset();
  }

  void count_bytes(const Shape& shape, at::ScalarType type) {
    bytes_ += elements(shape) * static_cast<int64_t>(c10::elementSize(type));
    peak_bytes_ = std::max(peak_bytes_, bytes_);
  }

  void sleep_at_random() {
    std::this_thread::sleep_for(
        std::chrono::duration<double>(random_.uniform(0, options_.chaos_delay_seconds)));
  }

  StepResult finish(Clock::time_point start, const Traffic& before) {
    StepResult result;
    for (ValueId id : graph_.outputs()) result.outputs.push_back(tensors_[id]);
    result.timeline.title = graph_.description();
    result.timeline.rank = group_.rank();
    result.timeline.spans.reserve(plans_.size());
    for (const OpPlan& plan : plans_) {
      if (plan.op->kind == OpKind::join) continue;
      Span span = span_of(*plan.op);
      if (!lane_.queues()) {
        set_host_times(plan, start, span);
      } else if (!set_device_times(plan, span)) {
        continue;
      }
      result.timeline.step_seconds = std::max(result.timeline.step_seconds, span.end);
      result.timeline.spans.push_back(std::move(span));
    }
    const Traffic after = group_.traffic();
    result.traffic = {.bytes_sent = after.bytes_sent - before.bytes_sent,
                      .bytes_received = after.bytes_received - before.bytes_received,
                      .collectives = after.collectives - before.collectives};
    result.peak_activation_bytes = peak_bytes_;
    for (const Value& value : graph_.values()) {
      if (value.kind != ValueKind::parameter) tensors_[value.id].reset();
    }
    return result;
  }

  void set_host_times(const OpPlan& plan, Clock::time_point start, Span& span) const {
    if (works_[plan.op->id].valid()) {
      const WorkTimes times = works_[plan.op->id].times();
      span.posted = seconds_since(start, times.posted);
      span.start = seconds_since(start, times.started);
      span.end = seconds_since(start, times.finished);
    } else {
      const ComputeTimes& times = compute_times_[plan.op->id];
      span.posted = span.start = seconds_since(start, times.start);
      span.end = seconds_since(start, times.end);
    }
  }

  // False where nothing was recorded: for ops without work, or without a timeline.
  bool set_device_times(const OpPlan& plan, Span& span) const {
    const Work& work = works_[plan.op->id];
    const ComputeTimes& compute = compute_times_[plan.op->id];
    if (!options_.timeline) return false;
    if (work.valid()) {
      const std::optional<DeviceTimes> times = work.device_times(origin_);
      if (!times) return false;
      span.posted = span.start = times->started;
      span.end = times->finished;
    } else {
      span.posted = span.start = compute.begun.seconds_since(origin_);
      span.end = compute.done.seconds_since(origin_);
    }
    return true;
  }

  const ModelConfig& model_;
  const Placement& placement_;
  const Graph& graph_;
  Group& group_;
  const ExecutorOptions options_;
  const ComputeLane lane_;
  const c10::Stream communication_ = group_.stream();
  const std::vector<OpPlan> plans_;  // by op
  Sizes sizes_;
  std::vector<at::Tensor> tensors_;           // by value
  std::vector<Work> works_;                   // by op; valid for communication that was launched
  std::vector<bool> sizes_known_;             // by op
  std::vector<at::Tensor> host_;              // by value: copies, on a device only
  std::vector<std::optional<Event>> copied_;  // by op that binds sizes, once host copies are queued
  std::vector<bool> done_;                    // by step of the schedule
  std::vector<bool> awaited_;                 // by op: some step of the schedule waits for it
  std::vector<ComputeTimes> compute_times_;   // by op
  std::vector<at::Tensor> in_, host_in_, out_;  // of the op at hand
  std::vector<Shape> shapes_;                   // of its outputs
  Event origin_;                                // on a device: when the step started there
  int64_t bytes_ = 0, peak_bytes_ = 0;          // of activations
  double waited_ = 0;                           // seconds of the host for the device, in this step
  int host_waits_ = 0;
  Random random_;
};

Executor::Executor(const ModelConfig& model, const Placement& placement, const Graph& graph,
                   const KernelTable& kernels, const Weights& weights, Group& group,
                   ExecutorOptions options)
    : impl_(std::make_unique<Impl>(model, placement, graph, kernels, weights, group, options)) {}

Executor::~Executor() = default;

StepResult Executor::run(const Schedule& schedule, const Batch& batch) {
  return impl_->run(schedule, batch);
}

}  // namespace farskip
