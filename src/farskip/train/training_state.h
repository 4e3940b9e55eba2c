#pragma once

#include "farskip/runtime/routing_state.h"
#include "farskip/train/adamw.h"
#include "farskip/train/parameter_store.h"

namespace farskip {

// What the kernels of a training step know besides tensors: the rank's parameters, and what the
// update of this step is to be. One thread.
class TrainingState final : public RoutingState {
 public:
  TrainingState(ParameterStore& store, const AdamwConfig& optimizer, double max_norm,
                RoutingOptions routing = {})
      : RoutingState(routing), store_(store), optimizer_(optimizer), max_norm_(max_norm) {}

  ParameterStore& store() { return store_; }
  const AdamwConfig& optimizer() const { return optimizer_; }
  double max_norm() const { return max_norm_; }  // gradients are clipped to; 0: not

  // Of the update at hand, set before the step.
  double learning_rate = 0;
  int64_t update = 1;  // counted from 1

 private:
  ParameterStore& store_;
  const AdamwConfig optimizer_;
  const double max_norm_;
};

}  // namespace farskip
