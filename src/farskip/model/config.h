#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace farskip {

// Rotary position embedding of one model.
struct RopeConfig {
  enum class Scaling { none, linear, yarn, llama3 };
  double theta = 10000.0;
  int dims = 0;              // rotated dimensions of a head (the first `dims` of it)
  bool interleaved = false;  // rotates pairs (x_2i, x_2i+1); else (x_i, x_i+dims/2)
  Scaling scaling = Scaling::none;
  double factor = 1.0;
  double beta_fast = 32.0, beta_slow = 1.0;   // yarn
  double mscale = 0.0, mscale_all_dim = 0.0;  // yarn; 0: not given
  double attention_factor = 0.0;              // yarn, given outright; 0: from mscale or factor
  bool truncate = true;                       // yarn: round the correction range
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  int64_t original_max_position = 0;                     // yarn, llama3
};

// Attention of one model. grouped_query covers MHA and GQA; latent is DeepSeek's MLA.
struct AttentionConfig {
  enum class Kind { grouped_query, latent };
  enum class QkNorm { none, per_head, all_heads, l2_after_rope };
  Kind kind = Kind::grouped_query;
  int heads = 0, kv_heads = 0;
  int head_dim = 0;                                                // grouped_query: of q, k and v
  int q_lora_rank = 0;                                             // latent; 0: q is not compressed
  int kv_lora_rank = 0;                                            // latent
  int qk_nope_head_dim = 0, qk_rope_head_dim = 0, v_head_dim = 0;  // latent
  bool qkv_bias = false, output_bias = false;
  bool output_gate = false;  // Instella: o input x sigmoid(gate(x))
  bool sinks = false;        // gpt_oss: one more logit per head
  QkNorm qk_norm = QkNorm::none;
  double clip_qkv = 0.0;        // 0: none
  double lora_norm_eps = 1e-6;  // q_a and kv_a layernorm, whatever rms_norm_eps says
  int per_layer = 1;            // attention blocks a layer (LongCat: 2)
  std::vector<int64_t> window;  // per layer: keys a query may look back on, itself counted; 0: all
  // Width of one head in the q.k product and of one value head.
  int qk_head_dim() const {
    return kind == Kind::latent ? qk_nope_head_dim + qk_rope_head_dim : head_dim;
  }
  int value_head_dim() const { return kind == Kind::latent ? v_head_dim : head_dim; }
};

// How the router scores, limits, chooses and weighs experts.
struct RouterConfig {
  enum class Scoring { softmax, sigmoid, softmax_of_chosen };
  enum class GroupScore { best, sum_of_best_two };
  int experts = 0, top_k = 0;
  int zero_experts = 0;  // LongCat: extra choices that cost nothing
  Scoring scoring = Scoring::softmax;
  bool correction_bias = false;  // added to the scores for choosing, not for weighing
  bool logit_bias = false;       // gpt_oss
  bool fp32 = false;             // logits in fp32 whatever the model's dtype
  int groups = 1, kept_groups = 1;
  GroupScore group_score = GroupScore::best;
  double masked_score = 0.0;  // what experts outside the kept groups score: 0, or -infinity
  bool normalize = false;
  double normalize_epsilon = 0.0;
  double scale = 1.0;
};

// The feed-forward blocks: routed experts, shared experts, dense MLPs. All are SwiGLU.
struct MlpConfig {
  int64_t expert_width = 0;  // of one routed expert
  int64_t shared_width = 0;  // all shared experts of a layer as one MLP; 0: none
  int64_t dense_width = 0;   // the MLP of a dense layer
  bool shared_gate = false;  // qwen2_moe: shared x sigmoid(gate(x))
  bool expert_bias = false;  // gpt_oss
  int dense_per_layer = 0;   // LongCat: dense MLPs in every MoE layer
};

// Which contributions a layer makes to the residual stream besides attention.
struct LayerKind {
  bool routed = false;  // has routed experts
  bool shared = false;  // has shared experts, or is dense (a dense MLP counts as shared)
  bool dense() const { return !routed; }
  bool operator==(const LayerKind&) const = default;
};
using LayerKinds = std::vector<LayerKind>;

// A Mixture-of-Experts language model, read from a Hugging Face config.json. Plain data.
struct ModelConfig {
  std::string name;        // file stem or folder name; for people
  std::string family;      // whose behaviour and tensor names it has, e.g. "deepseek_v3"
  std::string model_type;  // as the file states it, e.g. "kimi_k2" of family "deepseek_v3"
  int64_t hidden = 0, vocabulary = 0;
  double norm_eps = 1e-6;
  bool tied_embeddings = false;
  std::string checkpoint_dtype;     // torch_dtype / dtype as stated; may be empty
  std::string quantization;         // quant_method as stated, e.g. "fp8"; empty: none
  int64_t fp8_block = 0;            // 128 where weights are FP8 with one scale per block; 0: not
  std::string activation = "silu";  // of experts and MLPs
  AttentionConfig attention;
  RopeConfig rope;
  RouterConfig router;
  MlpConfig mlp;
  LayerKinds layers;  // [0] is layer 1 of the design's formulas

  int layer_count() const { return static_cast<int>(layers.size()); }
  int moe_layer_count() const;
  // Multiplier of q.k before the softmax: qk_head_dim^-0.5, times mscale^2 for yarn MLA.
  double softmax_scale() const;
  // True if this version has kernels for the family: deepseek_v2, deepseek_v3 (and Kimi-K2,
  // Moonlight), qwen3_moe, olmoe, mixtral. Otherwise why_not_executable says what is missing.
  bool executable() const { return why_not_executable().empty(); }
  std::string why_not_executable() const;
};

// Reads config.json (both transformers-5 and older hub key styles). `path` may be the file or
// a checkpoint folder holding config.json. Throws ConfigError (file, field, expected, found), and
// FileError where the file can not be read or is no JSON. Any thread.
ModelConfig read_model_config(const std::filesystem::path& path);

// As read_model_config, from text; `where` names the source in errors, `name` the model. Throws
// ConfigError, and FileError for text that is no JSON.
ModelConfig parse_model_config(const std::string& json_text, const std::string& where,
                               const std::string& name);

// The same model with its first `layers` layers only. Throws ConfigError if it has fewer.
ModelConfig cut_layers(ModelConfig config, int layers);

// Weights of the model, in elements. Exact below 2^53. MTP layers and vision towers are not counted
// (data/models/SOURCES.md).
struct ParameterCount {
  double total = 0;  // all weights, norms and biases included
  // A token's share: attention, router, k experts, shared, head; no embedding. Zero experts take
  // part in the choice, so k real experts are k x experts / (experts + zero experts) on average.
  double active = 0;
  double embedding = 0;  // the input embedding alone
};
ParameterCount count_parameters(const ModelConfig& config);

}  // namespace farskip
