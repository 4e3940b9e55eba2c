#include "farskip/runtime/step_tensors.h"

#include <algorithm>
#include <string>

#include "farskip/base/error.h"

namespace farskip {
namespace {

int64_t elements(at::IntArrayRef shape) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return count;
}

}  // namespace

StepTensors::StepTensors(const Graph& graph, const ComputeLane& lane, const Sizes& sizes,
                         const Recordings& recordings, const c10::Stream& within,
                         const c10::Stream& between)
    : graph_(graph),
      lane_(lane),
      sizes_(sizes),
      recordings_(recordings),
      within_(within),
      between_(between),
      tensors_(graph.values().size()) {}

void StepTensors::begin() {
  for (const Value& value : graph_.values()) {
    if (value.kind == ValueKind::activation) tensors_[value.id].reset();
  }
  bytes_ = peak_bytes_ = 0;
}

void StepTensors::gather(const OpPlan& plan, std::vector<at::Tensor>& in) const {
  in.clear();
  for (const InputPlan& input : plan.inputs) {
    const at::Tensor& whole = tensors_[input.value];
    if (input.cut) {
      in.push_back(whole.narrow(0, sizes_.offset(plan.piece), sizes_.of({1, plan.piece})));
    } else {
      in.push_back(whole);
    }
  }
}

bool StepTensors::prepare(const OpPlan& plan, std::vector<at::Tensor>& out) {
  out.clear();
  shapes_.resize(plan.outputs.size());
  bool any = plan.outputs.empty();
  for (size_t i = 0; i < plan.outputs.size(); ++i) {
    set_shape(*plan.outputs[i].shape, shapes_[i]);
    any |= elements(shapes_[i]) > 0;
  }
  for (size_t i = 0; i < plan.outputs.size(); ++i) {
    const OutputPlan& output = plan.outputs[i];
    if (output.whole != none) {
      out.push_back(part(output, shapes_[i][0], stream_of(plan)));
      continue;
    }
    if (at::Tensor place = recordings_.place(output.value); place.defined()) {
      out.push_back(std::move(place));
      continue;
    }
    const bool kernel_makes_it =
        any && plan.entry->makes_outputs && !recordings_.needs_place(output.value);
    out.push_back(kernel_makes_it ? at::Tensor()
                                  : lane_.allocate(shapes_[i], output.type, stream_of(plan)));
  }
  return any;
}

const c10::Stream& StepTensors::stream_of(const OpPlan& plan) const {
  if (plan.op->lane == Lane::compute) return lane_.stream();
  return is_between_stages(plan.op->attributes) ? between_ : within_;
}

// Its rows of the whole, which is allocated for the first part to run if it has no place.
at::Tensor StepTensors::part(const OutputPlan& output, int64_t rows, const c10::Stream& stream) {
  at::Tensor& whole = tensors_[output.whole];
  if (!whole.defined()) {
    Shape shape;
    set_shape(*output.whole_shape, shape);
    whole = recordings_.place(output.whole);
    if (!whole.defined()) whole = lane_.allocate(shape, output.whole_type, stream);
    count(whole);
  }
  int64_t offset = 0;
  for (const Dim& dim : output.before) offset += sizes_.of(dim);
  return whole.narrow(0, offset, rows);
}

void StepTensors::set_shape(const std::vector<Dim>& dims, Shape& shape) const {
  shape.clear();
  for (const Dim& dim : dims) shape.push_back(sizes_.of(dim));
}

void StepTensors::count(const at::Tensor& tensor) {
  bytes_ += static_cast<int64_t>(tensor.nbytes());
  peak_bytes_ = std::max(peak_bytes_, bytes_);
}

void StepTensors::check_made(const OpPlan& plan, const std::vector<at::Tensor>& out) const {
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i].defined() && out[i].sizes() == at::IntArrayRef(shapes_[i]) &&
        out[i].scalar_type() == plan.outputs[i].type) {
      continue;
    }
    throw GraphError("a kernel made an output of another shape or dtype than the graph says",
                     {.where = describe(*plan.op) + ", output " + std::to_string(i),
                      .expected = c10::str(at::IntArrayRef(shapes_[i])) + " " +
                                  c10::toString(plan.outputs[i].type),
                      .found = out[i].defined() ? c10::str(out[i].sizes()) + " " +
                                                      c10::toString(out[i].scalar_type())
                                                : "none"});
  }
}

void StepTensors::refit(const OpPlan& plan) {
  Shape shape;
  const auto refit = [&](ValueId id) {
    at::Tensor& tensor = tensors_[id];
    if (!tensor.defined() || graph_.value(id).kind != ValueKind::activation) return;
    set_shape(graph_.value(id).shape, shape);
    tensor = tensor.as_strided(shape, tensor.strides());
  };
  for (const InputPlan& input : plan.inputs) refit(input.value);
  for (const OutputPlan& output : plan.outputs) refit(output.value);
}

void StepTensors::keep(const OpPlan& plan, const std::vector<at::Tensor>& out) {
  for (size_t i = 0; i < out.size(); ++i) {
    tensors_[plan.outputs[i].value] = out[i];
    if (plan.outputs[i].whole == none && out[i].defined()) count(out[i]);
  }
}

void StepTensors::free(ValueId id) {
  at::Tensor& tensor = tensors_[id];
  if (tensor.defined() && graph_.value(id).part_of == none) {
    bytes_ -= static_cast<int64_t>(tensor.nbytes());
  }
  tensor.reset();
}

void StepTensors::end() {
  for (const Value& value : graph_.values()) {
    const bool stays = value.kind == ValueKind::parameter || value.kind == ValueKind::gradient;
    if (!stays) tensors_[value.id].reset();
  }
}

}  // namespace farskip
