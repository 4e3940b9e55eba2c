#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "farskip/io/checkpoint.h"
#include "farskip/io/weight_specs.h"
#include "farskip/model/config.h"
#include "farskip/model/placement.h"

namespace farskip {

// The weights of one rank by canonical name (weight_specs.h), contiguous, on the CPU. With tied
// embeddings "head" is the same tensor as "embedding".
using Weights = std::map<std::string, at::Tensor>;

// Loads the weights of the ranks that this process holds: result[i] is of ranks[i]. What every rank
// holds is loaded once and its tensors are shared; an expert's bytes are read once, by its rank
// alone. Memory beyond the result is a few MB: tensors are converted one after the other straight
// from the mapping. config may have fewer layers than the checkpoint.
// Throws FileError naming tensor, expected and found, before anything is allocated, for a missing
// or unknown tensor and for a wrong shape or dtype, also of experts that no rank here holds;
// ConfigError for a rank that comes twice or is not in the placement; UnsupportedError for a model
// that is not executable or a dtype that is not floating.
std::vector<Weights> load_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                                  const Placement& placement, std::span<const int> ranks,
                                  at::ScalarType dtype);

// Weights drawn at random, for measurements: matrices normal with standard deviation
// 1 / sqrt(columns), so that activations keep their size from layer to layer; the embedding normal
// with deviation 1, so that tokens stay distinct; norms one, biases zero. A value depends on the
// weight's name, its expert, its place and the seed alone, not on ranks or placement; on a GPU they
// are drawn there, and are others than on a CPU. Replicated
// weights are shared by the ranks. Throws as weight_specs.
std::vector<Weights> random_weights(const ModelConfig& config, const Placement& placement,
                                    std::span<const int> ranks, at::ScalarType dtype, uint64_t seed,
                                    at::Device device = at::kCPU);
Weights random_weights(const ModelConfig& config, const Placement& placement, int rank,
                       at::ScalarType dtype, uint64_t seed);

// Weights to train from the beginning: normal with the given standard deviation, and with
// 1 / sqrt(2 layers) of it in attention.output and every down, so that the residual stream does not
// grow with depth (GPT-2); norms one, biases zero. Else as random_weights: the same values whatever
// ranks and placement, and replicated weights shared by the ranks, each of which must copy them
// before it changes them. Throws ConfigError for a deviation that is not above 0.
std::vector<Weights> initial_weights(const ModelConfig& config, const Placement& placement,
                                     std::span<const int> ranks, at::ScalarType dtype,
                                     uint64_t seed, double deviation = 0.02,
                                     at::Device device = at::kCPU);

}  // namespace farskip
