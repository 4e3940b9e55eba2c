#pragma once

#include <functional>
#include <string>
#include <vector>

#include "farskip/io/weight_specs.h"
#include "farskip/model/config.h"

namespace farskip {

// Where the weights of a model stand in its Hugging Face checkpoint. Layers count from 1 here and
// from 0 in the files. Two ways of storing experts are known: three tensors an expert, and one
// tensor for all (transformers 5); files say by what they contain which one they use.
class CheckpointNaming {
 public:
  // `contains` tells whether the checkpoint has a tensor; it is called while the object lives.
  CheckpointNaming(const ModelConfig& config, std::function<bool(const std::string&)> contains);

  // The tensors that stand one under the other in a weight that is not of experts; as many as
  // spec.parts.
  std::vector<std::string> sources(const WeightSpec& spec) const;

  // True where a layer's experts are stored as one tensor.
  bool experts_fused(int layer) const;
  // Of one expert (from 0): gate then up for the role expert_gate_up, down for expert_down.
  std::vector<std::string> expert_sources(int layer, WeightRole role, int expert) const;
  // Of all experts as one tensor.
  std::string fused_source(int layer, WeightRole role) const;

  // True for tensors that a checkpoint may hold and this program does not need: layers beyond the
  // model's (multi-token prediction, or a model cut short), rotary tables, a second copy of tied
  // embeddings.
  bool ignorable(const std::string& name) const;

 private:
  std::string moe_block(int layer) const;

  int layers_;
  bool mixtral_, tied_, compressed_queries_;
  std::function<bool(const std::string&)> contains_;
};

}  // namespace farskip
