#pragma once

namespace farskip {

// Losses of routers that are added to the one that is trained on, by their coefficients; 0: none.
// Summed over the layers that have a router; formulas: docs/formulas.md.
struct RouterLosses {
  double balance = 0;           // of the experts' loads over a micro-batch (Switch, DeepSeek-V2)
  double sequence_balance = 0;  // of their loads in each sequence (DeepSeek-V3)
  double z = 0;                 // of the logits' size (ST-MoE)

  bool any() const { return balance != 0 || sequence_balance != 0 || z != 0; }
  bool operator==(const RouterLosses&) const = default;
};
inline constexpr int router_loss_count = 3;

}  // namespace farskip
