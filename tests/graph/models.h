#pragma once

#include "farskip/graph/build.h"
#include "farskip/model/builtin.h"

namespace farskip::testing {

// A shipped model whose first `layers` layers are all MoE: the steady state of its middle.
inline ModelConfig moe_layers(const char* name, int layers) {
  ModelConfig model = load_model(name);
  const LayerKind kind = model.layers.back();
  model.layers.assign(layers, kind);
  if (!model.attention.window.empty()) model.attention.window.assign(layers, 0);
  return model;
}

inline Graph forward(const ModelConfig& model, const char* preset, StepSpec spec) {
  return build_forward(model, Connectivity::preset(preset, model.layers), spec);
}

inline StepSpec bf16_step(int ranks, double tokens, double context) {
  return {.ranks = ranks,
          .tokens = tokens,
          .sequences = tokens / context,
          .dtype = DType::bfloat16,
          .wire = DType::bfloat16};
}

}  // namespace farskip::testing
