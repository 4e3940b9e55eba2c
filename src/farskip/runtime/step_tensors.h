#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>
#include <c10/util/SmallVector.h>

#include <cstdint>
#include <vector>

#include "farskip/graph/graph.h"
#include "farskip/runtime/compute_lane.h"
#include "farskip/runtime/op_plan.h"
#include "farskip/runtime/recordings.h"
#include "farskip/runtime/sizes.h"

namespace farskip {

// The tensors of one rank's step, by value of its graph: allocated as ops need them, counted, and
// freed. Sizes must be bound before they are asked for. One thread.
class StepTensors {
 public:
  // All arguments must outlive it. `recordings`: which values have a place of their own.
  // `within`, `between`: the streams that collectives of the stage and what goes between stages
  // write on.
  StepTensors(const Graph& graph, const ComputeLane& lane, const Sizes& sizes,
              const Recordings& recordings, const c10::Stream& within, const c10::Stream& between);

  // Where parameters, gradients and inputs are put.
  std::vector<at::Tensor>& by_value() { return tensors_; }
  const at::Tensor& operator[](ValueId id) const { return tensors_[id]; }

  // Lets activations go and counts anew; all else stays.
  void begin();
  // An op's inputs, cut to its piece.
  void gather(const OpPlan& plan, std::vector<at::Tensor>& in) const;
  // An op's outputs: in their places, or allocated where its kernel does not make them; false if
  // all are empty, so that there is nothing to compute.
  bool prepare(const OpPlan& plan, std::vector<at::Tensor>& out);
  // Throws GraphError if a kernel made an output of another shape or dtype than the graph says;
  // `out` as prepare left it, filled in.
  void check_made(const OpPlan& plan, const std::vector<at::Tensor>& out) const;
  // What the op reads and writes, of the rows that sizes say by now: its memory has room for them.
  void refit(const OpPlan& plan);
  // Takes an op's outputs.
  void keep(const OpPlan& plan, const std::vector<at::Tensor>& out);
  void free(ValueId id);
  // Lets activations and inputs go.
  void end();

  int64_t peak_bytes() const { return peak_bytes_; }  // of activations since begin

 private:
  using Shape = c10::SmallVector<int64_t, 4>;
  const c10::Stream& stream_of(const OpPlan& plan) const;
  at::Tensor part(const OutputPlan& output, int64_t rows, const c10::Stream& stream);
  void set_shape(const std::vector<Dim>& dims, Shape& shape) const;
  void count(const at::Tensor& tensor);

  const Graph& graph_;
  const ComputeLane& lane_;
  const Sizes& sizes_;
  const Recordings& recordings_;
  const c10::Stream within_, between_;
  std::vector<at::Tensor> tensors_;
  std::vector<Shape> shapes_;  // of the outputs last prepared
  int64_t bytes_ = 0, peak_bytes_ = 0;
};

}  // namespace farskip
