#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "farskip/cuda/launch_graph.h"
#include "farskip/runtime/compute_lane.h"
#include "farskip/runtime/recording_plan.h"
#include "farskip/runtime/row_capacity.h"

namespace farskip {

// Memory that recorded steps write what they alone need to: made when the first step is recorded.
// Executors whose steps run in turn may share it. Thread rule: one thread.
class RecordingMemory {
 public:
  // Throws as PrivateMemory.
  const cuda::PrivateMemory& on(at::Device device) {
    if (!memory_) memory_ = std::make_unique<cuda::PrivateMemory>(device);
    return *memory_;
  }
  bool is_made() const { return memory_ != nullptr; }
  void give_back() { memory_.reset(); }

 private:
  std::unique_ptr<cuda::PrivateMemory> memory_;
};

// Ops of the compute lane that one rank's steps launch by one call a stretch, on a GPU: to launch
// an op costs the host much more than to launch a recorded one. When a schedule comes a second time
// with the same sequences, its stretches (recording_plan.h) are recorded, with memory of their own
// that stays where it is, and from then on they are launched as recorded. Where routing decides how
// many rows there are, there is room for more (row_capacity.h); in a step that brings more still,
// ops are launched one by one, and all is recorded anew with the next. What is computed, and the
// order on the lane, stay the same. Where memory is short, or recording fails, ops go on being
// launched one by one. Thread rule: one thread.
class Recordings {
 public:
  // All arguments must outlive it. Not `wanted`, or on another device: nothing is ever recorded.
  // `shared`: memory for what is recorded, or null: its own.
  Recordings(const Graph& graph, std::span<const OpPlan> plans, const Sizes& sizes,
             const ComputeLane& lane, bool wanted, RecordingMemory* shared);

  // Before a step, when nothing of an earlier one is held any more. The schedule stays as it is
  // until the next begin.
  void begin(const Schedule& schedule, const std::vector<int64_t>& lengths);
  // The step went through, with the sizes that are bound and activations of so many bytes at most.
  void complete(int64_t peak_activation_bytes);

  // The steps that are launched together with this op, which is the first of them; none if the op
  // is launched alone, or with an earlier one. Sizes that the op needs are bound.
  std::span<const Step> stretch_from(OpId op) const;
  // The op is launched with an earlier one.
  bool launched_with_another(OpId op) const;
  bool is_on() const { return state_ == State::recording || state_ == State::recorded; }
  bool is_recording() const { return state_ == State::recording; }

  // Memory for what an op makes that is launched alone, in force while the result lives: null if it
  // may lie anywhere.
  std::unique_ptr<cuda::PrivateMemory::Use> memory_for(const OpPlan& plan) const;
  // Where the value lies in every step, as many rows of it as there are; undefined if nowhere, or
  // not yet, or not with so many rows.
  at::Tensor place(ValueId value) const;
  // Sizes of the stretch that begins with this op which routing decides.
  std::span<const SymbolId> routed_in(OpId op) const { return plan_.routed[plan_.stretch_of[op]]; }
  int64_t capacity_of(SymbolId symbol) const { return capacity_.of(symbol); }
  // The value must be allocated before a kernel that would make it, so that it has a place.
  bool needs_place(ValueId value) const;
  // The op's outputs are made: while recording, what stays has its place.
  void keep_places(const OpPlan& plan, std::span<const at::Tensor> out);
  // The value's memory stays, and the compute lane alone reads it.
  bool is_of_lane(ValueId value) const { return stays(value) && plan_.lent_until[value] == none; }
  // The compute lane waits from here on for an op of the communication lane, which is through with
  // what it was lent.
  void passed(OpId op);

  // While recording: records what `queue` queues on the lane for the stretch that begins with `op`.
  // False if that fails: nothing of it was queued, and nothing is recorded any more as long as the
  // same steps come.
  bool record(OpId op, const std::function<void()>& queue);
  // Nothing is recorded any more as long as the same steps come.
  void refuse();
  // Queues it on the lane.
  void launch(OpId op) const;

 private:
  // What the communication lane was lent while recording, and its place there.
  struct Lent {
    int until;
    at::Tensor tensor;
  };
  // off: nothing was seen yet; watched: seen once; then recording, then recorded, or refused.
  enum class State { off, watched, recording, recorded, refused };
  void forget();
  bool has_room();
  void start_recording();
  void place_arrivals();
  std::vector<int64_t> whole_shape(ValueId value) const;
  std::span<const Step> stretch_with(OpId op) const;
  bool stays(ValueId value) const { return is_on() && plan_.stays[value]; }

  const Graph& graph_;
  const std::span<const OpPlan> plans_;
  const Sizes& sizes_;
  const ComputeLane& lane_;
  const bool wanted_;
  State state_ = State::off;
  bool completed_ = false;
  int64_t peak_activation_bytes_ = 0;  // of the step that was completed last
  // Of the step that was watched last.
  std::vector<Step> steps_;
  std::vector<int64_t> lengths_;
  RecordingPlan plan_;
  RowCapacity capacity_;
  RecordingMemory own_memory_;  // outlives what was recorded with it
  RecordingMemory& memory_;
  std::vector<std::optional<cuda::LaunchGraph>> graphs_;  // by stretch
  std::vector<at::Tensor> places_;                        // by value; they own no memory
  std::vector<Lent> lent_;
  std::vector<at::Tensor> slots_;  // while recording: memory of arrivals
};

}  // namespace farskip
