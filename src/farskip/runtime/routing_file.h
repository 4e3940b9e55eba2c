#pragma once

#include <cstdint>
#include <filesystem>

#include "farskip/model/config.h"
#include "farskip/runtime/routing_state.h"

namespace farskip {

// Routing to replay, from a safetensors file: for every MoE layer I (from 0, as in checkpoints)
// `experts.layers.I` int64 or int32 [tokens, top_k] and `weights.layers.I` float32 of that shape.
// Throws FileError for a missing tensor, another shape or dtype, an expert outside the model, or
// one that a token has twice.
RoutingRecord read_routing(const std::filesystem::path& path, const ModelConfig& model,
                           int64_t tokens);

// Writes that file, whole or not at all. Throws FileError.
void write_routing(const std::filesystem::path& path, const RoutingRecord& record);

}  // namespace farskip
