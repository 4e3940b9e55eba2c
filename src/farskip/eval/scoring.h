#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "farskip/eval/request.h"

namespace farskip {

// The log-probability, in nats, of each request's scored ids. logits: fp32 [sum of inputs, V], the
// requests' rows one after the other, on any device. Throws Error for another number of rows, or an
// id outside V. Any thread.
std::vector<double> log_probabilities(const at::Tensor& logits, std::span<const Request> requests);

}  // namespace farskip
