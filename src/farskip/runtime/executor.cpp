#include "farskip/runtime/executor.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>

#include "farskip/base/error.h"
#include "farskip/base/random.h"
#include "farskip/nn/tensor_ops.h"
#include "farskip/runtime/bind_weights.h"
#include "farskip/runtime/executor_checks.h"
#include "farskip/runtime/host_values.h"
#include "farskip/runtime/op_plan.h"
#include "farskip/runtime/shared_lane.h"
#include "farskip/runtime/sizes.h"
#include "farskip/runtime/step_tensors.h"
#include "farskip/runtime/step_times.h"
#include "farskip/schedule/launch.h"
#include "farskip/simulate/simulate.h"

namespace farskip {

class Executor::Impl final : private Launcher {
 public:
  Impl(const ModelConfig& model, const Placement& placement, const Graph& graph,
       const KernelTable& kernels, const Weights& weights, Group& group, ExecutorOptions options)
      : model_(model),
        placement_(placement),
        graph_(graph),
        group_(group),
        options_(options),
        own_lane_(options.shared ? nullptr : std::make_unique<ComputeLane>(group.device())),
        lane_(options.shared ? options.shared->lane : *own_lane_),
        plans_(plan_ops(graph, kernels)),
        sizes_(graph, placement, group.rank() % placement.ranks()),
        recordings_(graph, plans_, sizes_, lane_, options.records && !options.check_finite,
                    options.shared ? &options.shared->recorded : nullptr),
        tensors_(graph, lane_, sizes_, recordings_, group.stream(),
                 options.stages ? options.stages->stream() : group.stream()),
        times_(lane_, graph.ops().size(), options.timeline),
        works_(graph.ops().size()),
        behind_(graph.ops().size()),
        host_(graph, lane_, tensors_),
        sizes_known_(graph.ops().size(), false),
        awaited_(graph.ops().size(), false),
        place_(graph.ops().size(), 0),
        random_(options.chaos_seed.value_or(0) * 1000003 + static_cast<uint64_t>(group.rank())) {
    check_ranks(graph, placement, group, options.stages);
    bind_weights(graph, ValueKind::parameter, sizes_, weights, tensors_.by_value());
    bind_weights(graph, ValueKind::gradient, sizes_,
                 options.gradients ? *options.gradients : Weights(), tensors_.by_value());
  }

  StepResult run(const Schedule& schedule, const Batch& batch) {
    if (schedule.graph_hash != graph_.hash()) {
      throw ScheduleError("the schedule is for another graph",
                          {.where = schedule.name, .expected = graph_.description()});
    }
    // Gradients are ops of a graph: without a layer that looks for them every call costs less.
    const at::NoGradGuard no_gradients;
    const at::AutoDispatchBelowADInplaceOrView no_autograd;
    called_ = Event::record_current(lane_.device());
    called_.block(lane_.stream());
    const auto on_own_stream = lane_.use();
    begin(schedule, batch);
    const Traffic before = traffic();
    times_.begin();
    launch_all(schedule, lane_.queues(), *this);
    const double launching = times_.host_seconds() - waited_;
    for (const Work& work : works_) {
      if (work.valid()) work.synchronize();
    }
    const Event end = lane_.mark(true);
    await(end);
    StepResult result = finish(before);
    recordings_.complete(result.peak_activation_bytes);
    if (end.valid()) {
      result.timeline.step_seconds = times_.device_seconds(end);
      result.host_seconds = launching;
      result.layers_host_seconds = launching - outside_layers_;
      result.host_waits = host_waits_;
    }
    return result;
  }

 private:
  void begin(const Schedule& schedule, const Batch& batch) {
    std::fill(awaited_.begin(), awaited_.end(), false);
    int place = 0;
    for (const Step& step : schedule.steps) {
      place_[step.op] = place++;
      for (OpId op : step.wait_for) awaited_[op] = true;
    }
    sizes_.start(batch.lengths);
    adds_gradients_ = batch.adds_gradients;
    never_waits_ = batch.never_waits && lane_.queues();
    tensors_.begin();
    recordings_.begin(schedule, batch.lengths);
    if (!recordings_.is_on()) times_.forget_events();
    for (const Value& value : graph_.values()) {
      if (value.kind == ValueKind::input) bind_input(value, batch);
    }
    std::fill(works_.begin(), works_.end(), Work());
    std::fill(behind_.begin(), behind_.end(), Work());
    last_within_ = last_between_ = Work();
    std::fill(sizes_known_.begin(), sizes_known_.end(), false);
    host_.begin();
    waited_ = outside_layers_ = 0;
    host_waits_ = 0;
  }

  // The rows of the input's micro-batch; all of an input of exact shape.
  void bind_input(const Value& value, const Batch& batch) {
    const Dim& rows = value.shape.at(0);
    const int64_t expected = rows.exact() ? rows.size : sizes_.first_token(graph_.micro_batches());
    const auto found = batch.inputs.find(value.name);
    const bool fits = found != batch.inputs.end() && found->second.dim() >= 1 &&
                      found->second.size(0) == expected;
    if (!fits) {
      throw Error(
          "the batch lacks an input, or has one of another length",
          {.where = value.name,
           .expected = std::to_string(expected) + " rows",
           .found = found == batch.inputs.end() ? "none" : c10::str(found->second.sizes())});
    }
    at::Tensor input = found->second;
    if (!rows.exact()) {
      const int micro_batch = graph_.symbol(rows.symbol).micro_batch;
      input = input.narrow(0, sizes_.first_token(micro_batch), sizes_.tokens(micro_batch));
    }
    tensors_.by_value()[value.id] = tensor_ops::to_device(input, lane_.device());
  }

  void launch(const Step& step) override {
    if (plans_[step.op].op->attributes.layer > 0) return launch_op(step);
    const double begin = times_.host_seconds() - waited_;
    launch_op(step);
    outside_layers_ += times_.host_seconds() - waited_ - begin;
  }

  void launch_op(const Step& step) {
    if (recordings_.launched_with_another(step.op)) return;
    const OpPlan& plan = plans_[step.op];
    for (OpId binder : plan.sizes_from) learn_sizes(binder);
    if (options_.chaos_seed) sleep_at_random();
    if (plan.op->lane == Lane::communication) {
      communicate(plan, ready_behind(step));
    } else {
      for (OpId awaited : step.wait_for) {
        if (!never_waits_ || !brings_numbers(plans_[awaited])) wait_for(awaited);
        recordings_.passed(awaited);
      }
      const std::span<const Step> stretch = recordings_.stretch_from(step.op);
      if (!stretch.empty()) {
        launch_stretch(stretch);
      } else if (plan.op->kind != OpKind::join) {
        compute(plan);
      }
    }
    if (plan.op->host_waits && plan.op->lane == Lane::compute) learn_sizes(step.op);
    in_.clear();
    host_in_.clear();
    out_.clear();
  }

  // Any numbers will do where these are late: no sizes, and no places of rows, which packets carry.
  static bool brings_numbers(const OpPlan& plan) {
    return plan.binds.empty() && plan.op->attributes.dispatch == DispatchForm::per_expert;
  }

  // The compute lane does.
  void wait_for(OpId op) {
    for (const Work& work : {behind_[op], works_[op]}) {
      if (work.valid()) work.wait(lane_.stream());
    }
    // Between stages, what one stream reads may be memory of another.
    const bool ordered = lane_.queues() && options_.stages == nullptr;
    if (ordered && works_[op].valid()) works_[op].let_tensors_go();
  }

  void free(ValueId value) override { tensors_.free(value); }

  KernelContext context_of(const OpPlan& plan) const {
    const int micro_batch = plan.op->attributes.micro_batch;
    return {.model = model_,
            .placement = placement_,
            .rank = group_.rank() % placement_.ranks(),
            .op = *plan.op,
            .lengths = plan.by_sequences ? sizes_.lengths_of_part(plan.piece)
                                         : sizes_.lengths(micro_batch),
            .first_token = sizes_.first_token(micro_batch),
            .state = options_.state,
            .host_in = host_in_,
            .gradients = gradients_};
  }

  // The compute lane is first in, first out: behind the last of its ops, all are done.
  Event ready_behind(const Step& step) const {
    if (step.wait_for.empty()) return called_;
    return times_.done(std::ranges::max(step.wait_for, {}, [&](OpId op) { return place_[op]; }));
  }

  void gather_inputs(const OpPlan& plan) {
    tensors_.gather(plan, in_);
    host_in_.clear();
    for (const InputPlan& input : plan.inputs) host_in_.push_back(host_[input.value]);
  }

  void communicate(const OpPlan& plan, Event ready) {
    gather_inputs(plan);
    with_room([&] { tensors_.prepare(plan, out_); });
    KernelContext context = context_of(plan);
    context.ready = std::move(ready);
    works_[plan.op->id] = post(plan, context);
    // Inputs the work keeps until it is done.
    for (const at::Tensor& tensor : out_) lane_.keep_for(tensor, lane_.stream());
    tensors_.keep(plan, out_);
  }

  // The communication lane is first in, first out over both groups: who waits for a work waits for
  // the other group's last one before it too.
  Work post(const OpPlan& plan, const KernelContext& context) {
    const bool between = is_between_stages(plan.op->attributes);
    behind_[plan.op->id] = between ? last_within_ : last_between_;
    for (ValueId id : plan.op->inputs) {
      const OpId producer = graph_.value(id).producer;
      if (producer == none || !works_[producer].valid()) continue;
      if (is_between_stages(graph_.op(producer).attributes) != between) {
        works_[producer].synchronize();
      }
    }
    Work& last = between ? last_between_ : last_within_;
    return last = plan.entry->launch(context, between ? *options_.stages : group_, in_, out_);
  }

  Traffic traffic() const {
    Traffic traffic = group_.traffic();
    if (options_.stages) traffic.add(options_.stages->traffic());
    return traffic;
  }

  void compute(const OpPlan& plan) {
    times_.begin_op(plan.op->id);
    run_kernel(plan);
    times_.end_op(plan.op->id, awaited_[plan.op->id]);
    if (options_.check_finite) check_finite(graph_, plan, group_.rank(), out_, gradients_);
  }

  void run_kernel(const OpPlan& plan) {
    gather_inputs(plan);
    gradients_.clear();
    for (const GradientPlan& gradient : plan.gradients) {
      gradients_.push_back({tensors_[gradient.value], gradient.adds || adds_gradients_});
    }
    with_room([&] { fill_outputs(plan); }, recordings_.memory_for(plan));
    recordings_.keep_places(plan, out_);
    tensors_.keep(plan, out_);
  }

  // The host runs ahead of the device: where memory does not last for that, it waits until
  // everything that was launched is through and holds none any more. Libtorch takes back what it
  // keeps for later only where no `private_memory` is given out. What is being recorded is given up
  // as a whole.
  template <typename Run>
  void with_room(Run run, std::unique_ptr<cuda::PrivateMemory::Use> private_memory = nullptr) {
    if (in_recording_) return run();
    try {
      run();
    } catch (const c10::OutOfMemoryError&) {
      if (private_memory) {
        private_memory.reset();
        recordings_.refuse();
      }
      for (const Work& work : works_) {
        if (work.valid()) work.synchronize();
      }
      await(lane_.mark(false));
      run();
    }
  }

  void fill_outputs(const OpPlan& plan) {
    if (!tensors_.prepare(plan, out_)) return;
    plan.entry->kernel(context_of(plan), in_, out_);
    if (plan.entry->makes_outputs) tensors_.check_made(plan, out_);
  }

  // Launches recorded ops by one call; the first time records them.
  void launch_stretch(std::span<const Step> stretch) {
    const OpId first = stretch.front().op, last = stretch.back().op;
    if (!recordings_.is_recording()) {
      for (const Step& step : stretch) {
        tensors_.prepare(plans_[step.op], out_);
        tensors_.keep(plans_[step.op], out_);
        free_staying(step);
      }
    } else if (!record_stretch(stretch)) {
      return compute(plans_[first]);
    }
    recordings_.launch(first);
    times_.end_op(last, awaited_[last]);
  }

  // False if the ops must be launched one by one.
  bool record_stretch(std::span<const Step> stretch) {
    for (const Step& step : stretch) times_.keep_events(step.op);
    const OpId last = stretch.back().op;
    const std::vector<int64_t> rows = make_room(stretch);
    in_recording_ = true;
    const bool recorded = recordings_.record(stretch.front().op, [&] {
      for (const Step& step : stretch) {
        times_.record_begin(step.op);
        run_kernel(plans_[step.op]);
        if (step.op != last) times_.record_end(step.op);
        free_made_in(stretch, step);
      }
    });
    in_recording_ = false;
    take_rows(stretch, rows);
    for (const Step& step : stretch) recorded ? free_staying(step) : forget_outputs(step);
    return recorded;
  }

  // What is recorded has room for more rows than this step has. Returns these.
  std::vector<int64_t> make_room(std::span<const Step> stretch) {
    std::vector<int64_t> rows, room;
    for (SymbolId symbol : recordings_.routed_in(stretch.front().op)) {
      rows.push_back(sizes_.of({.size = 1, .symbol = symbol}));
      room.push_back(recordings_.capacity_of(symbol));
    }
    take_rows(stretch, room);
    return rows;
  }

  void take_rows(std::span<const Step> stretch, const std::vector<int64_t>& rows) {
    const std::span<const SymbolId> routed = recordings_.routed_in(stretch.front().op);
    if (routed.empty()) return;
    for (size_t i = 0; i < routed.size(); ++i) sizes_.bind(routed[i], rows[i]);
    for (const Step& step : stretch) tensors_.refit(plans_[step.op]);
  }

  void forget_outputs(const Step& step) {
    for (const OutputPlan& output : plans_[step.op].outputs) tensors_.free(output.value);
  }

  // What the stretch itself made makes room for what it makes next: a stretch may be a whole step.
  // What it found must outlast a recording that fails.
  void free_made_in(std::span<const Step> stretch, const Step& step) {
    for (ValueId value : step.free_after) {
      const OpId producer = graph_.value(value).producer;
      const bool made = std::ranges::find(stretch, producer, &Step::op) != stretch.end();
      if (made && recordings_.is_of_lane(value)) tensors_.free(value);
    }
  }

  // What only the compute lane reads goes as soon as the last of its ops is launched.
  void free_staying(const Step& step) {
    for (ValueId value : step.free_after) {
      if (recordings_.is_of_lane(value)) tensors_.free(value);
    }
  }

  // Waits for an op that binds sizes and reads them.
  void learn_sizes(OpId binder) {
    if (sizes_known_[binder]) return;
    const OpPlan& plan = plans_[binder];
    if (lane_.queues()) {
      await(host_.copy(plan, works_[binder]));
    } else if (works_[binder].valid()) {
      works_[binder].synchronize();
    }
    std::vector<at::Tensor> in, out;
    for (const InputPlan& input : plan.inputs) in.push_back(host_[input.value]);
    for (const OutputPlan& output : plan.outputs) out.push_back(host_[output.value]);
    const KernelContext context = context_of(plan);
    for (SymbolId symbol : plan.binds) {
      sizes_.bind(symbol, plan.entry->bind(context, graph_.symbol(symbol), in, out));
    }
    sizes_known_[binder] = true;
  }

  bool sizes_known(const Step& step) override {
    return std::ranges::all_of(plans_[step.op].sizes_from,
                               [&](OpId binder) { return is_known(binder); });
  }

  // Whether learn_sizes would not wait. Takes the first step towards that where it can.
  bool is_known(OpId binder) {
    if (sizes_known_[binder]) return true;
    const Work& work = works_[binder];
    if (!work.valid() || (!host_.are_copied(binder) && !work.done())) return false;
    return host_.copy(plans_[binder], work).done();
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
    waited_ += std::chrono::duration<double>(Clock::now() - begin).count();
  }

  void sleep_at_random() {
    std::this_thread::sleep_for(
        std::chrono::duration<double>(random_.uniform(0, options_.chaos_delay_seconds)));
  }

  StepResult finish(const Traffic& before) {
    StepResult result;
    for (ValueId id : graph_.outputs()) result.outputs.push_back(tensors_[id]);
    result.timeline.title = graph_.description();
    result.timeline.rank = group_.rank();
    result.timeline.spans.reserve(plans_.size());
    for (const OpPlan& plan : plans_) {
      if (plan.op->kind == OpKind::join) continue;
      Span span = span_of(*plan.op);
      if (!times_.set(works_[plan.op->id], span)) continue;
      result.timeline.step_seconds = std::max(result.timeline.step_seconds, span.end);
      result.timeline.spans.push_back(std::move(span));
    }
    const Traffic after = traffic();
    result.traffic = {.bytes_sent = after.bytes_sent - before.bytes_sent,
                      .bytes_received = after.bytes_received - before.bytes_received,
                      .collectives = after.collectives - before.collectives};
    result.peak_activation_bytes = tensors_.peak_bytes();
    tensors_.end();
    return result;
  }

  const ModelConfig& model_;
  const Placement& placement_;
  const Graph& graph_;
  Group& group_;
  const ExecutorOptions options_;
  const std::unique_ptr<const ComputeLane> own_lane_;
  const ComputeLane& lane_;
  const std::vector<OpPlan> plans_;  // by op
  Sizes sizes_;
  Recordings recordings_;
  StepTensors tensors_;
  StepTimes times_;
  Event called_;                     // behind what the caller had queued
  std::vector<Work> works_;          // by op; valid for communication that was launched
  std::vector<Work> behind_;         // by op: the other group's last before it
  Work last_within_, last_between_;  // the stage, and stages
  HostValues host_;
  std::vector<bool> sizes_known_;               // by op
  std::vector<bool> awaited_;                   // by op: some step of the schedule waits for it
  std::vector<int> place_;                      // by op: in the schedule
  std::vector<at::Tensor> in_, host_in_, out_;  // of the op at hand
  std::vector<WeightGradient> gradients_;       // the same
  bool in_recording_ = false;                   // ops are recorded instead of run
  bool adds_gradients_ = false;                 // of the batch at hand
  bool never_waits_ = false;                    // the same
  double waited_ = 0;                           // seconds of the host for the device, in this step
  double outside_layers_ = 0;  // and of its launching of ops that belong to no layer
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
