#pragma once

#include <string>
#include <vector>

#include "farskip/model/config.h"

namespace farskip {

// One line of a description: what, and its value for people.
struct DescriptionRow {
  std::string label;
  std::string value;
};

// What the model is: family, layers, widths, attention, experts, vocabulary, parameters, rope,
// dtype, whether this version executes it.
std::vector<DescriptionRow> describe_model(const ModelConfig& config);

// Which contributions the layers make to the residual stream, one row per run of equal layers:
// ("layers 1-3", "attention, dense MLP").
std::vector<DescriptionRow> describe_contributions(const ModelConfig& config);

// Bytes of weights on the fullest rank, split as weight_bytes_per_rank does. Throws as it does.
std::vector<DescriptionRow> describe_weights(const ModelConfig& config, int expert_parallel,
                                             int tensor_parallel, double bytes_per_element);

}  // namespace farskip
