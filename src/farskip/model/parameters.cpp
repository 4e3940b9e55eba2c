#include "farskip/model/parameters.h"

#include <algorithm>

#include "farskip/base/error.h"

namespace farskip {
namespace {

double share(int64_t width, int ranks) { return static_cast<double>((width + ranks - 1) / ranks); }

double latent_attention(const ModelConfig& config, int ranks) {
  const AttentionConfig& a = config.attention;
  const double hidden = static_cast<double>(config.hidden);
  const double heads = a.heads / ranks;
  const double kv_rank = a.kv_lora_rank;
  const double compressed_kv = kv_rank + a.qk_rope_head_dim;
  double count = hidden * compressed_kv + kv_rank;
  count += kv_rank * heads * (a.qk_nope_head_dim + a.v_head_dim);
  count += heads * a.v_head_dim * hidden;
  if (a.q_lora_rank > 0) {
    const double q_rank = a.q_lora_rank;
    count += hidden * q_rank + q_rank + q_rank * heads * a.qk_head_dim();
  } else {
    count += hidden * heads * a.qk_head_dim();
  }
  if (a.output_gate) count += hidden * heads * a.v_head_dim;
  // The uncompressed q projection and the up projections never have one.
  if (a.qkv_bias) count += a.q_lora_rank + compressed_kv;
  if (a.output_bias) count += hidden;
  return count;
}

double grouped_query_attention(const ModelConfig& config, int ranks) {
  const AttentionConfig& a = config.attention;
  const double hidden = static_cast<double>(config.hidden);
  const double q_columns = static_cast<double>(a.heads / ranks) * a.head_dim;
  const double kv_columns = share(a.kv_heads, ranks) * a.head_dim;
  double count = hidden * (q_columns + 2 * kv_columns) + q_columns * hidden;
  if (a.qkv_bias) count += q_columns + 2 * kv_columns;
  if (a.output_bias) count += hidden;
  if (a.output_gate) count += hidden * q_columns;
  if (a.sinks) count += a.heads / ranks;
  if (a.qk_norm == AttentionConfig::QkNorm::per_head) count += 2.0 * a.head_dim;
  if (a.qk_norm == AttentionConfig::QkNorm::all_heads) count += q_columns + kv_columns;
  return count;
}

double embedding_parameters(const ModelConfig& config) {
  return static_cast<double>(config.vocabulary) * static_cast<double>(config.hidden);
}

}  // namespace

LayerParameters layer_parameters(const ModelConfig& config, int layer, int tensor_parallel) {
  if (layer < 1 || layer > config.layer_count()) {
    throw ConfigError("no such layer", {.where = config.name,
                                        .expected = "1 to " + std::to_string(config.layer_count()),
                                        .found = std::to_string(layer)});
  }
  if (tensor_parallel < 1 || config.attention.heads % tensor_parallel != 0) {
    throw ConfigError("attention heads do not divide over the tensor-parallel ranks",
                      {.where = config.name,
                       .expected = "a divisor of " + std::to_string(config.attention.heads),
                       .found = std::to_string(tensor_parallel)});
  }
  const LayerKind& kind = config.layers[layer - 1];
  const RouterConfig& router = config.router;
  const MlpConfig& mlp = config.mlp;
  const double hidden = static_cast<double>(config.hidden);
  LayerParameters result;
  result.norms = 2 * hidden * config.attention.per_layer;
  const double attention = config.attention.kind == AttentionConfig::Kind::latent
                               ? latent_attention(config, tensor_parallel)
                               : grouped_query_attention(config, tensor_parallel);
  result.attention = config.attention.per_layer * attention;
  const double dense = 3 * hidden * share(mlp.dense_width, tensor_parallel);
  if (kind.dense()) {
    result.dense = dense;
    return result;
  }
  result.dense = mlp.dense_per_layer * dense;
  const double choices = static_cast<double>(router.experts) + router.zero_experts;
  const bool router_bias = router.correction_bias || router.logit_bias;
  result.router = choices * (hidden + (router_bias ? 1 : 0));
  result.shared = 3 * hidden * share(mlp.shared_width, tensor_parallel);
  if (mlp.shared_gate) result.shared += hidden;
  const double width = static_cast<double>(mlp.expert_width);
  result.one_expert = 3 * hidden * width + (mlp.expert_bias ? 2 * width + hidden : 0);
  return result;
}

ParameterCount count_parameters(const ModelConfig& config) {
  const RouterConfig& router = config.router;
  const double chosen = static_cast<double>(router.top_k) * router.experts /
                        std::max(1.0, static_cast<double>(router.experts) + router.zero_experts);
  ParameterCount count;
  for (int layer = 1; layer <= config.layer_count(); ++layer) {
    const LayerParameters part = layer_parameters(config, layer);
    const double always = part.norms + part.attention + part.router + part.shared + part.dense;
    count.total += always + router.experts * part.one_expert;
    count.active += always + chosen * part.one_expert;
  }
  count.embedding = embedding_parameters(config);
  const double final_norm = static_cast<double>(config.hidden);
  count.total += (config.tied_embeddings ? 1 : 2) * count.embedding + final_norm;
  count.active += count.embedding + final_norm;
  return count;
}

WeightBytes weight_bytes_per_rank(const ModelConfig& config, int expert_parallel,
                                  int tensor_parallel, double bytes_per_element) {
  if (expert_parallel < 1 || expert_parallel > config.router.experts) {
    throw ConfigError("experts do not spread over the expert-parallel ranks",
                      {.where = config.name,
                       .expected = "1 to " + std::to_string(config.router.experts) + " ranks",
                       .found = std::to_string(expert_parallel)});
  }
  if (!(bytes_per_element > 0)) {
    throw ConfigError("weights need a size", {.where = config.name,
                                              .expected = "positive bytes per element",
                                              .found = std::to_string(bytes_per_element)});
  }
  const double local_experts = share(config.router.experts, expert_parallel);
  WeightBytes bytes;
  for (int layer = 1; layer <= config.layer_count(); ++layer) {
    const LayerParameters part = layer_parameters(config, layer, tensor_parallel);
    bytes.experts += local_experts * part.one_expert;
    bytes.other += part.norms + part.attention + part.router + part.shared + part.dense;
  }
  bytes.other += (config.tied_embeddings ? 1 : 2) * embedding_parameters(config) +
                 static_cast<double>(config.hidden);
  bytes.experts *= bytes_per_element;
  bytes.other *= bytes_per_element;
  return bytes;
}

}  // namespace farskip
