#include "farskip/model/fingerprint.h"

#include "farskip/base/hash.h"

namespace farskip {
namespace {

void add(Hasher& hasher, const AttentionConfig& a) {
  hasher.add(static_cast<int>(a.kind)).add(a.heads).add(a.kv_heads).add(a.head_dim);
  hasher.add(a.q_lora_rank).add(a.kv_lora_rank);
  hasher.add(a.qk_nope_head_dim).add(a.qk_rope_head_dim).add(a.v_head_dim);
  hasher.add(a.qkv_bias).add(a.output_bias).add(a.output_gate).add(a.sinks);
  hasher.add(static_cast<int>(a.qk_norm)).add(a.clip_qkv).add(a.lora_norm_eps).add(a.per_layer);
  hasher.add(a.window.size());
  for (const int64_t keys : a.window) hasher.add(keys);
}

void add(Hasher& hasher, const RopeConfig& r) {
  hasher.add(r.theta).add(r.dims).add(r.interleaved).add(static_cast<int>(r.scaling));
  hasher.add(r.factor).add(r.beta_fast).add(r.beta_slow).add(r.mscale).add(r.mscale_all_dim);
  hasher.add(r.attention_factor).add(r.truncate).add(r.low_freq_factor).add(r.high_freq_factor);
  hasher.add(r.original_max_position);
}

void add(Hasher& hasher, const RouterConfig& r) {
  hasher.add(r.experts).add(r.top_k).add(r.zero_experts).add(static_cast<int>(r.scoring));
  hasher.add(r.correction_bias).add(r.logit_bias).add(r.fp32).add(r.groups).add(r.kept_groups);
  hasher.add(static_cast<int>(r.group_score)).add(r.masked_score).add(r.normalize);
  hasher.add(r.normalize_epsilon).add(r.scale);
}

void add(Hasher& hasher, const MlpConfig& m) {
  hasher.add(m.expert_width).add(m.shared_width).add(m.dense_width);
  hasher.add(m.shared_gate).add(m.expert_bias).add(m.dense_per_layer);
}

}  // namespace

uint64_t fingerprint(const ModelConfig& config) {
  Hasher hasher;
  hasher.add(config.family).add(config.hidden).add(config.vocabulary).add(config.norm_eps);
  hasher.add(config.tied_embeddings).add(config.activation);
  add(hasher, config.attention);
  add(hasher, config.rope);
  add(hasher, config.router);
  add(hasher, config.mlp);
  hasher.add(config.layers.size());
  for (const LayerKind& layer : config.layers) hasher.add(layer.routed).add(layer.shared);
  return hasher.value();
}

}  // namespace farskip
