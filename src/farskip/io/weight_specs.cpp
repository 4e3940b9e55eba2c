#include "farskip/io/weight_specs.h"

#include <c10/core/ScalarType.h>

#include <numeric>
#include <utility>

#include "farskip/base/error.h"

namespace farskip {
namespace {

class SpecList {
 public:
  explicit SpecList(at::ScalarType dtype) : dtype_(dtype) {}

  void begin_layer(int layer) { layer_ = layer; }

  WeightSpec& add(const std::string& name, std::vector<int64_t> shape, WeightRole role,
                  std::vector<int64_t> parts = {}) {
    if (parts.empty()) parts = {shape.front()};
    specs_.push_back({.name = layer_ == 0 ? name : layer_weight_name(layer_, name),
                      .shape = std::move(shape),
                      .dtype = dtype_,
                      .role = role,
                      .layer = layer_,
                      .parts = std::move(parts)});
    return specs_.back();
  }

  void add_norm(const std::string& name, int64_t width) { add(name, {width}, WeightRole::norm); }

  // Matrices with the same inputs, one under the other.
  void add_stack(const std::string& name, std::vector<int64_t> rows, int64_t columns) {
    const int64_t total = std::accumulate(rows.begin(), rows.end(), int64_t{0});
    add(name, {total, columns}, WeightRole::matrix, std::move(rows));
  }

  void add_mlp(const std::string& name, int64_t width, int64_t hidden) {
    add_stack(name + ".gate_up", {width, width}, hidden);
    add_stack(name + ".down", {hidden}, width);
  }

  void add_experts(int64_t local, int64_t width, int64_t hidden) {
    add("experts.gate_up", {local, 2 * width, hidden}, WeightRole::expert_gate_up, {width, width});
    add("experts.down", {local, hidden, width}, WeightRole::expert_down, {hidden});
  }

  std::vector<WeightSpec> take() { return std::move(specs_); }

 private:
  at::ScalarType dtype_;
  int layer_ = 0;
  std::vector<WeightSpec> specs_;
};

void add_grouped_query(SpecList& list, const ModelConfig& config) {
  const AttentionConfig& attention = config.attention;
  const int64_t width = attention.head_dim;
  const int64_t queries = attention.heads * width, keys = attention.kv_heads * width;
  list.add_stack("attention.qkv", {queries, keys, keys}, config.hidden);
  if (attention.qk_norm == AttentionConfig::QkNorm::per_head) {
    list.add_norm("attention.q_norm", width);
    list.add_norm("attention.k_norm", width);
  } else if (attention.qk_norm == AttentionConfig::QkNorm::all_heads) {
    list.add_norm("attention.q_norm", queries);
    list.add_norm("attention.k_norm", keys);
  }
}

void add_latent(SpecList& list, const ModelConfig& config) {
  const AttentionConfig& attention = config.attention;
  const int64_t queries = int64_t{attention.heads} * attention.qk_head_dim();
  const bool compressed = attention.q_lora_rank > 0;
  list.add_stack("attention.q_kv_a",
                 {compressed ? attention.q_lora_rank : queries,
                  attention.kv_lora_rank + attention.qk_rope_head_dim},
                 config.hidden);
  if (compressed) {
    list.add_norm("attention.q_a_norm", attention.q_lora_rank);
    list.add_stack("attention.q_b", {queries}, attention.q_lora_rank);
  }
  list.add_norm("attention.kv_a_norm", attention.kv_lora_rank);
  list.add_stack("attention.kv_b",
                 {int64_t{attention.heads} * (attention.qk_nope_head_dim + attention.v_head_dim)},
                 attention.kv_lora_rank);
}

void add_layer(SpecList& list, const ModelConfig& config, const LayerKind& kind, int64_t local) {
  const AttentionConfig& attention = config.attention;
  list.add_norm("attention_norm", config.hidden);
  if (attention.kind == AttentionConfig::Kind::latent) {
    add_latent(list, config);
  } else {
    add_grouped_query(list, config);
  }
  list.add_stack("attention.output", {config.hidden},
                 int64_t{attention.heads} * attention.value_head_dim());
  list.add_norm("mlp_norm", config.hidden);
  if (kind.dense()) return list.add_mlp("dense", config.mlp.dense_width, config.hidden);
  const int64_t experts = config.router.experts;
  list.add("router", {experts, config.hidden}, WeightRole::matrix);
  if (config.router.correction_bias) {
    list.add("router_bias", {experts}, WeightRole::bias).dtype = at::kFloat;
  }
  list.add_experts(local, config.mlp.expert_width, config.hidden);
  if (kind.shared) list.add_mlp("shared", config.mlp.shared_width, config.hidden);
}

void check(const ModelConfig& config, const Placement& placement, int rank, at::ScalarType dtype) {
  if (!at::isFloatingType(dtype) || c10::elementSize(dtype) < 2) {
    throw UnsupportedError(
        "weights can not have this dtype",
        {.expected = "float32, bfloat16, float16 or float64", .found = c10::toString(dtype)});
  }
  if (!config.executable()) {
    throw UnsupportedError("model is not executable yet",
                           {.where = config.name, .found = config.why_not_executable()});
  }
  if (rank < 0 || rank >= placement.ranks()) {
    throw ConfigError("no such rank in the placement",
                      {.expected = "0 to " + std::to_string(placement.ranks() - 1),
                       .found = std::to_string(rank)});
  }
  if (placement.experts() != config.router.experts) {
    throw ConfigError("placement is for another model",
                      {.where = config.name,
                       .expected = std::to_string(config.router.experts) + " experts",
                       .found = std::to_string(placement.experts())});
  }
}

}  // namespace

int64_t WeightSpec::bytes() const {
  return std::accumulate(shape.begin(), shape.end(), static_cast<int64_t>(c10::elementSize(dtype)),
                         std::multiplies<>());
}

std::string layer_weight_name(int layer, const std::string& weight) {
  return "layer." + std::to_string(layer) + "." + weight;
}

std::vector<WeightSpec> weight_specs(const ModelConfig& config, const Placement& placement,
                                     int rank, at::ScalarType dtype) {
  check(config, placement, rank, dtype);
  const auto local = static_cast<int64_t>(placement.experts_of(rank).size());
  SpecList list(dtype);
  list.add("embedding", {config.vocabulary, config.hidden}, WeightRole::embedding);
  for (int layer = 1; layer <= config.layer_count(); ++layer) {
    list.begin_layer(layer);
    add_layer(list, config, config.layers[static_cast<size_t>(layer - 1)], local);
  }
  list.begin_layer(0);
  list.add_norm("final_norm", config.hidden);
  if (!config.tied_embeddings) list.add_stack("head", {config.vocabulary}, config.hidden);
  return list.take();
}

}  // namespace farskip
