#pragma once

namespace farskip::step_outputs {

// The names of what training steps give out besides logits. A step of several micro-batches has
// some once for each; losses are this rank's shares.
inline constexpr const char* loss = "loss";  // fp32 [1]
// fp64 [1]: the sum of the squares of all gradients, over all ranks.
inline constexpr const char* squares = "squares";
// int64 [routers, experts], routers in the order of their layers: how many tokens of the step chose
// each expert, over all ranks.
inline constexpr const char* expert_loads = "expert loads";
// fp32 [router_loss_count]: the router losses in the order of RouterLosses, as they are added to
// the loss, summed over layers.
inline constexpr const char* router_losses = "router losses";

}  // namespace farskip::step_outputs
