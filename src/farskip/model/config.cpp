#include "farskip/model/config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "farskip/base/json.h"
#include "farskip/model/family.h"

namespace farskip {
namespace {

constexpr uint64_t max_file_bytes = uint64_t{16} << 20;

// How far yarn sharpens attention: 0.1 m ln(s) + 1 (arXiv 2309.00071, section 3.4).
double yarn_mscale(double factor, double mscale) {
  return factor > 1.0 ? 0.1 * mscale * std::log(factor) + 1.0 : 1.0;
}

std::string known_families() {
  std::string names;
  for (const Family& family : families()) {
    names += (names.empty() ? "one of " : ", ") + std::string(family.model_type);
  }
  return names;
}

const Family& family_of(const Fields& fields) {
  if (fields.has("model_type")) {
    if (const Family* family = find_family(fields.text("model_type"))) return *family;
    fields.fail("model_type", "unknown model family", known_families());
  }
  const std::vector<std::string> architectures = fields.texts_or_none("architectures");
  if (architectures.empty()) {
    fields.fail("model_type", "missing field, and architectures names none", known_families());
  }
  if (const Family* family = find_family_by_architecture(architectures[0])) return *family;
  fields.fail("architectures", "unknown architecture, and no model_type", known_families());
}

// Multimodal files nest the language model in text_config; what only the outer object states
// (dtype, quantization, tied embeddings) holds for it too.
Json language_model(const Fields& outer, const Json& root) {
  if (!outer.has("text_config")) return root;
  outer.object("text_config");
  Json inner = root.at("text_config");
  for (const char* key : {"dtype", "torch_dtype", "quantization_config", "tie_word_embeddings",
                          "architectures", "model_type"}) {
    if (!inner.contains(key) && root.contains(key)) inner[key] = root.at(key);
  }
  return inner;
}

bool slides(const AttentionConfig& attention) {
  return std::any_of(attention.window.begin(), attention.window.end(),
                     [](int64_t window) { return window > 0; });
}

}  // namespace

int ModelConfig::moe_layer_count() const {
  return static_cast<int>(std::count_if(layers.begin(), layers.end(),
                                        [](const LayerKind& layer) { return layer.routed; }));
}

double ModelConfig::softmax_scale() const {
  double scale = 1.0 / std::sqrt(attention.qk_head_dim());
  if (attention.kind == AttentionConfig::Kind::latent &&
      rope.scaling == RopeConfig::Scaling::yarn && rope.mscale_all_dim > 0.0) {
    const double mscale = yarn_mscale(rope.factor, rope.mscale_all_dim);
    scale *= mscale * mscale;
  }
  return scale;
}

std::string ModelConfig::why_not_executable() const {
  const auto not_yet = [this](const std::string& what) {
    return family + ": " + what + " not executable yet";
  };
  if (const std::string_view missing = missing_kernels(family); !missing.empty()) {
    return not_yet(std::string(missing) + " are");
  }
  if (!find_family(family)) return not_yet("this family is");
  if (activation != "silu") return not_yet("activation " + activation + " is");
  if (attention.qkv_bias || attention.output_bias) return not_yet("attention biases are");
  if (slides(attention)) return not_yet("sliding windows are");
  if (attention.kind == AttentionConfig::Kind::grouped_query && rope.dims != attention.head_dim) {
    return not_yet("partly rotated heads are");
  }
  if (!quantization.empty() && fp8_block == 0) {
    return not_yet("weights quantised with " + quantization + " (without block scales) are");
  }
  return {};
}

ModelConfig parse_model_config(const std::string& json_text, const std::string& where,
                               const std::string& name) {
  const Json root = parse_json(json_text, where);
  const Fields outer(root, where);
  const bool nested = outer.has("text_config");
  const Json json = language_model(outer, root);
  const Fields fields(json, where, nested ? "text_config" : "");
  const Family& family = family_of(fields);
  ModelConfig model;
  model.name = name;
  model.family = family.family;
  model.model_type = family.model_type;
  family.read(fields, model);
  return model;
}

ModelConfig read_model_config(const std::filesystem::path& path) {
  std::error_code ignored;
  const bool folder = std::filesystem::is_directory(path, ignored);
  const std::filesystem::path file = folder ? path / "config.json" : path;
  const std::string text = read_file(file, max_file_bytes);
  const std::filesystem::path whole = std::filesystem::absolute(file).lexically_normal();
  const bool named_by_folder = whole.filename() == "config.json";
  const std::string name =
      named_by_folder ? whole.parent_path().filename().string() : whole.stem().string();
  return parse_model_config(text, file.string(), name);
}

ModelConfig cut_layers(ModelConfig config, int layers) {
  if (layers < 1 || layers > config.layer_count()) {
    throw ConfigError("cannot cut to this many layers",
                      {.where = config.name,
                       .expected = "1 to " + std::to_string(config.layer_count()) + " layers",
                       .found = std::to_string(layers)});
  }
  config.layers.resize(layers);
  if (!config.attention.window.empty()) config.attention.window.resize(layers);
  return config;
}

}  // namespace farskip
