#include "farskip/runtime/recordings.h"

#include <ATen/ops/from_blob.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "farskip/cuda/device.h"
#include "farskip/runtime/dtypes.h"

namespace farskip {
namespace {

// The same elements, without a part in their memory's life.
at::Tensor without_owning(const at::Tensor& tensor) {
  return at::for_blob(tensor.mutable_data_ptr(), tensor.sizes())
      .strides(tensor.strides())
      .options(tensor.options())
      .target_device(tensor.device())
      .make_tensor();
}

}  // namespace

Recordings::Recordings(const Graph& graph, std::span<const OpPlan> plans, const Sizes& sizes,
                       const ComputeLane& lane, bool wanted, RecordingMemory* shared)
    : graph_(graph),
      plans_(plans),
      sizes_(sizes),
      lane_(lane),
      wanted_(wanted && lane.device().is_cuda() && cuda_is_built()),
      capacity_(graph, sizes),
      memory_(shared != nullptr ? *shared : own_memory_),
      places_(graph.values().size()) {}

void Recordings::begin(const Schedule& schedule, const std::vector<int64_t>& lengths) {
  const bool went_through = std::exchange(completed_, false);
  lent_.clear();
  slots_.clear();
  if (!wanted_) return;
  const bool same = went_through && state_ != State::off && lengths == lengths_ &&
                    std::ranges::equal(schedule.steps, steps_);
  if (same) {
    if (state_ == State::watched) {
      state_ = has_room() ? State::recording : State::refused;
    } else if (is_on()) {
      state_ = capacity_.is_outgrown() ? State::recording : State::recorded;
    }
    if (state_ == State::recording) start_recording();
    return;
  }
  forget();
  steps_ = schedule.steps;
  lengths_ = lengths;
  plan_ = plan_recordings(graph_, plans_, steps_);
  graphs_.resize(plan_.stretches.size());
  state_ = State::watched;
}

void Recordings::complete(int64_t peak_activation_bytes) {
  completed_ = true;
  lent_.clear();
  slots_.clear();
  peak_activation_bytes_ = peak_activation_bytes;
  if (wanted_) capacity_.see();
}

// What is recorded keeps its memory, which may be more than the activations' in lumps of another
// size, beside what steps need that are not recorded, or the other variants'.
bool Recordings::has_room() {
  const bool is_first = !memory_.is_made();
  const int64_t room = memory_.on(lane_.device()).make_room();
  const double needed = (is_first ? 3.0 : 1.5) * static_cast<double>(peak_activation_bytes_);
  if (static_cast<double>(room) >= needed) return true;
  if (is_first) memory_.give_back();
  return false;
}

// What is recorded anew has room for what was seen.
void Recordings::start_recording() {
  graphs_.clear();
  graphs_.resize(plan_.stretches.size());
  std::ranges::fill(places_, at::Tensor());
  capacity_.grow();
  place_arrivals();
}

void Recordings::place_arrivals() {
  std::vector<int64_t> bytes;  // by slot
  for (const Arrival& arrival : plan_.arrivals) {
    bytes.resize(std::max(bytes.size(), static_cast<size_t>(arrival.slot) + 1), 1);
    const int64_t needed = c10::multiply_integers(whole_shape(arrival.value)) *
                           bytes_of(graph_.value(arrival.value).dtype);
    bytes[arrival.slot] = std::max(bytes[arrival.slot], needed);
  }
  try {
    const cuda::PrivateMemory::Use use(memory_.on(lane_.device()), lane_.stream());
    for (int64_t needed : bytes) {
      slots_.push_back(lane_.allocate({needed}, at::kByte, lane_.stream()));
    }
  } catch (const c10::OutOfMemoryError&) {
    return refuse();
  }
  for (const auto& [value, slot] : plan_.arrivals) {
    const at::ScalarType type = scalar_type_of(graph_.value(value).dtype);
    places_[value] = at::for_blob(slots_[slot].mutable_data_ptr(), whole_shape(value))
                         .options(slots_[slot].options().dtype(type))
                         .target_device(lane_.device())
                         .make_tensor();
  }
}

// With all the room that there is.
std::vector<int64_t> Recordings::whole_shape(ValueId value) const {
  std::vector<int64_t> shape;
  for (const Dim& dim : graph_.value(value).shape) {
    shape.push_back(is_routed(graph_, dim) ? dim.size * capacity_.of(dim.symbol) : sizes_.of(dim));
  }
  return shape;
}

at::Tensor Recordings::place(ValueId value) const {
  const at::Tensor& place = places_[value];
  const std::vector<Dim>& shape = graph_.value(value).shape;
  if (!place.defined() || shape.empty() || !is_routed(graph_, shape[0])) return place;
  if (!capacity_.fits({&shape[0].symbol, 1})) return {};
  return place.narrow(0, 0, sizes_.of(shape[0]));
}

void Recordings::forget() {
  graphs_.clear();
  capacity_.forget();
  std::ranges::fill(places_, at::Tensor());
  own_memory_.give_back();
}

std::span<const Step> Recordings::stretch_with(OpId op) const {
  if (!is_on() || plan_.stretch_of[op] == none) return {};
  const int stretch = plan_.stretch_of[op];
  return capacity_.fits(plan_.routed[stretch]) ? plan_.stretches[stretch] : std::span<const Step>();
}

std::span<const Step> Recordings::stretch_from(OpId op) const {
  const std::span<const Step> stretch = stretch_with(op);
  return !stretch.empty() && stretch[0].op == op ? stretch : std::span<const Step>();
}

bool Recordings::launched_with_another(OpId op) const {
  const std::span<const Step> stretch = stretch_with(op);
  return !stretch.empty() && stretch[0].op != op;
}

std::unique_ptr<cuda::PrivateMemory::Use> Recordings::memory_for(const OpPlan& plan) const {
  const bool alone = is_recording() && plan_.stretch_of[plan.op->id] == none;
  const bool any = alone && std::ranges::any_of(plan.outputs, [&](const OutputPlan& out) {
                     return plan_.stays[out.value];
                   });
  return any ? std::make_unique<cuda::PrivateMemory::Use>(memory_.on(lane_.device()),
                                                          lane_.stream())
             : nullptr;
}

bool Recordings::needs_place(ValueId value) const {
  return stays(value) && plan_.stretch_of[graph_.value(value).producer] == none;
}

void Recordings::keep_places(const OpPlan& plan, std::span<const at::Tensor> out) {
  if (!is_recording()) return;
  for (size_t i = 0; i < out.size(); ++i) {
    const ValueId value = plan.outputs[i].value;
    if (!plan_.stays[value] || out[i].numel() == 0) continue;
    places_[value] = without_owning(out[i]);
    if (plan_.lent_until[value] != none) lent_.push_back({plan_.lent_until[value], out[i]});
  }
}

void Recordings::passed(OpId op) {
  std::erase_if(lent_, [&](const Lent& lent) { return lent.until <= plan_.place_of[op]; });
}

bool Recordings::record(OpId op, const std::function<void()>& queue) {
  try {
    // In force all the while: memory that other threads free meanwhile is kept until afterwards,
    // instead of being marked on a stream that is recorded.
    const cuda::PrivateMemory::Use use(memory_.on(lane_.device()), lane_.stream());
    graphs_[plan_.stretch_of[op]].emplace(lane_.stream(), queue);
    return true;
  } catch (const std::exception&) {
    // What is wrong with an op itself shows again when it is launched alone.
    refuse();
    return false;
  }
}

void Recordings::refuse() {
  std::ranges::fill(places_, at::Tensor());
  lent_.clear();
  state_ = State::refused;
}

void Recordings::launch(OpId op) const { graphs_[plan_.stretch_of[op]]->launch(lane_.stream()); }

}  // namespace farskip
