#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "farskip/model/config.h"
#include "farskip/train/shards.h"

namespace farskip {

// The parameters of a model as shards know them, in the order of weight_specs. Throws as
// weight_specs.
std::vector<FlatParameter> flat_parameters(const ModelConfig& config);

// The elements of an entry in a rank's tensors by canonical name (its weights, or gradients of the
// same shapes, contiguous): a view [entry.count]. `experts` are those of the rank, ascending.
// Throws ConfigError if the rank has no such parameter, expert or elements.
at::Tensor entry_view(const std::map<std::string, at::Tensor>& tensors, const ShardEntry& entry,
                      const std::vector<int>& experts);

}  // namespace farskip
