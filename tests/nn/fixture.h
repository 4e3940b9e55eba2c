#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "farskip/model/config.h"
#include "farskip/nn/attention.h"

namespace farskip::testing {

using TensorMap = std::map<std::string, at::Tensor>;

// All tensors of a well-formed safetensors file.
TensorMap read_tensors(const std::string& path);

// One of the tiny checkpoints under tests/fixtures, with its golden tensors.
struct Fixture {
  ModelConfig config;
  TensorMap weights;  // under the names of the hub
  TensorMap golden;
};
Fixture load_fixture(const std::string& family);

enum class Wiring { standard, farskip };

// What a straight-line forward pass of one sequence batch gives.
struct ForwardResult {
  at::Tensor logits;                // fp32 [T, V]
  std::vector<at::Tensor> experts;  // per routed layer: int64 [T, k]
};

// The whole model on one rank: no graph, no executor, no chunks. `ids` int64 [T], flat.
ForwardResult reference_forward(const Fixture& fixture, Wiring wiring, const at::Tensor& ids,
                                const std::vector<int64_t>& lengths);

}  // namespace farskip::testing
