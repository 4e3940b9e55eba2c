#pragma once

#include <span>

#include "farskip/io/checkpoint.h"
#include "farskip/io/naming.h"
#include "farskip/io/weight_specs.h"

namespace farskip {

// How a layer's experts lie in the checkpoint. Fused: one tensor for all, [E, 2 I, H] and [E, H, I]
// as transformers 5 writes them, or with the last two dimensions exchanged. Shapes of both tensors
// together always tell which: 2 I = H and I = H do not hold at once.
enum class ExpertLayout { per_expert, fused, fused_transposed };

// The layout of one layer with routed experts. Throws FileError if the shapes fit neither.
ExpertLayout expert_layout(const Checkpoint& checkpoint, const CheckpointNaming& naming,
                           const ModelConfig& config, int layer);

// Holds every tensor of the checkpoint against the specs of a rank: all there, of the right shape,
// floating, and nothing besides. Throws FileError naming the first that is wrong.
void check_checkpoint(const Checkpoint& checkpoint, const CheckpointNaming& naming,
                      const ModelConfig& config, std::span<const WeightSpec> specs);

}  // namespace farskip
