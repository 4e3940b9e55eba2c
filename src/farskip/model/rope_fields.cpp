#include <string>

#include "farskip/model/common_fields.h"

namespace farskip {
namespace {

constexpr double max_theta = 1e15;
constexpr double max_factor = 1e6;

// Where the scaling stands: rope_parameters, else rope_scaling, else nowhere.
std::string scaling_type(const Fields& scaling) {
  const std::string type = scaling.text_or("rope_type", scaling.text_or("type", "default"));
  if (scaling.has("type") && scaling.text("type") != type) {
    scaling.fail("type", "contradicts rope_type", type);
  }
  return type;
}

void read_yarn(const Fields& fields, const Fields& scaling, RopeConfig& rope) {
  rope.scaling = RopeConfig::Scaling::yarn;
  const int64_t longest = fields.integer_or("max_position_embeddings", 0, 1, max_positions);
  rope.original_max_position =
      scaling.has("original_max_position_embeddings") || longest == 0
          ? scaling.integer("original_max_position_embeddings", 1, max_positions)
          : longest;
  if (scaling.has("factor") || longest < rope.original_max_position) {
    rope.factor = scaling.number("factor", 1.0, max_factor);
  } else {
    rope.factor = static_cast<double>(longest) / static_cast<double>(rope.original_max_position);
  }
  rope.beta_fast = scaling.number_or("beta_fast", 32.0, 1e-6, max_factor);
  rope.beta_slow = scaling.number_or("beta_slow", 1.0, 1e-6, max_factor);
  if (rope.beta_fast < rope.beta_slow) {
    scaling.fail("beta_fast", "contradicts beta_slow", "at least beta_slow");
  }
  rope.mscale = scaling.number_or("mscale", 0.0, 0.0, 1e3);
  rope.mscale_all_dim = scaling.number_or("mscale_all_dim", 0.0, 0.0, 1e3);
  rope.attention_factor = scaling.number_or("attention_factor", 0.0, 0.0, 1e3);
  rope.truncate = scaling.flag_or("truncate", true);
}

void read_llama3(const Fields& scaling, RopeConfig& rope) {
  rope.scaling = RopeConfig::Scaling::llama3;
  rope.factor = scaling.number("factor", 1.0, max_factor);
  rope.low_freq_factor = scaling.number("low_freq_factor", 1e-6, max_factor);
  rope.high_freq_factor = scaling.number("high_freq_factor", 1e-6, max_factor);
  if (rope.high_freq_factor < rope.low_freq_factor) {
    scaling.fail("high_freq_factor", "contradicts low_freq_factor", "at least low_freq_factor");
  }
  rope.original_max_position =
      scaling.integer("original_max_position_embeddings", 1, max_positions);
}

void read_scaling(const Fields& fields, const Fields& scaling, RopeConfig& rope) {
  const std::string type = scaling_type(scaling);
  if (type == "default") return;
  if (type == "yarn") return read_yarn(fields, scaling, rope);
  if (type == "llama3") return read_llama3(scaling, rope);
  if (type == "linear") {
    rope.scaling = RopeConfig::Scaling::linear;
    rope.factor = scaling.number("factor", 1.0, max_factor);
    return;
  }
  scaling.fail(scaling.first_of({"rope_type", "type"}), "unknown rope scaling",
               "default, linear, yarn or llama3");
}

void read_rotated_dims(const Fields& fields, const Fields* parameters, ModelConfig& model,
                       double default_partial) {
  RopeConfig& rope = model.rope;
  if (model.attention.kind == AttentionConfig::Kind::latent) {
    rope.dims = model.attention.qk_rope_head_dim;
    if (rope.dims % 2 != 0) fields.fail("qk_rope_head_dim", "rope turns pairs", "an even number");
    return;
  }
  const int head_dim = model.attention.head_dim;
  constexpr std::string_view partial_key = "partial_rotary_factor";
  const Fields& source = parameters && parameters->has(partial_key) ? *parameters : fields;
  const bool by_share = source.has(partial_key) || !fields.has("rotary_dim");
  rope.dims =
      by_share
          ? static_cast<int>(head_dim * source.number_or(partial_key, default_partial, 0.0, 1.0))
          : static_cast<int>(fields.integer("rotary_dim", 1, head_dim));
  if (rope.dims < 2 || rope.dims % 2 != 0) {
    const std::string_view key = source.has(partial_key)    ? partial_key
                                 : fields.has("rotary_dim") ? "rotary_dim"
                                                            : "head_dim";
    source.fail(key,
                "rope turns pairs, and would turn " + std::to_string(rope.dims) + " dimensions",
                "an even number of rotated dimensions in a head of " + std::to_string(head_dim));
  }
}

}  // namespace

void read_rope(const Fields& fields, ModelConfig& model, const RopeDefaults& defaults) {
  RopeConfig& rope = model.rope;
  rope.interleaved = defaults.interleaved;
  const std::string_view key = fields.first_of({"rope_parameters", "rope_scaling"});
  if (fields.has(key)) {
    const Fields parameters = fields.object(key);
    const Fields& theta_source = parameters.has("rope_theta") ? parameters : fields;
    rope.theta = theta_source.number_or("rope_theta", defaults.theta, 1.0, max_theta);
    read_rotated_dims(fields, &parameters, model, defaults.partial);
    read_scaling(fields, parameters, rope);
    return;
  }
  rope.theta = fields.number_or("rope_theta", defaults.theta, 1.0, max_theta);
  read_rotated_dims(fields, nullptr, model, defaults.partial);
}

}  // namespace farskip
