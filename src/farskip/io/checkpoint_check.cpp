#include "farskip/io/checkpoint_check.h"

#include <string>
#include <unordered_set>
#include <vector>

#include "farskip/base/error.h"

namespace farskip {
namespace {

using Shape = std::vector<int64_t>;

bool is_fp8(StoredType type) { return type == StoredType::f8_e4m3 || type == StoredType::f8_e5m2; }

bool is_floating(StoredType type) {
  return type == StoredType::f64 || type == StoredType::f32 || type == StoredType::f16 ||
         type == StoredType::bf16 || is_fp8(type);
}

[[noreturn]] void fail(const Checkpoint& checkpoint, const std::string& name,
                       const std::string& summary, std::string expected, std::string found) {
  throw FileError(summary,
                  {.where = checkpoint.file_of(name).path().string() + ": " + printable_name(name),
                   .expected = std::move(expected),
                   .found = std::move(found),
                   .hint = "config.json and weights may belong to different models"});
}

// Checks tensors one by one and remembers them, so that what is left over is known to be unknown.
class Checker {
 public:
  explicit Checker(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  void check(const std::string& name, const Shape& shape) {
    const StoredTensor& tensor = checkpoint_.info(name);
    if (!is_floating(tensor.type)) {
      fail(checkpoint_, name, "wrong dtype", "F32, F16, BF16, F64 or FP8", tensor.describe());
    }
    if (tensor.shape != shape) {
      fail(checkpoint_, name, "wrong shape", describe_shape(shape), describe_shape(tensor.shape));
    }
    known_.insert(name);
    if (is_fp8(tensor.type)) known_.insert(Checkpoint::scale_name(name));
  }

  void check_nothing_else(const CheckpointNaming& naming) const {
    for (const std::string& name : checkpoint_.names()) {
      if (known_.count(name) == 0 && !naming.ignorable(name)) {
        fail(checkpoint_, name, "unknown tensor", "only tensors that the model has",
             checkpoint_.info(name).describe());
      }
    }
  }

 private:
  const Checkpoint& checkpoint_;
  std::unordered_set<std::string> known_;
};

Shape part_shape(const WeightSpec& spec, size_t part) {
  if (spec.shape.size() == 1) return spec.shape;
  return {spec.parts[part], spec.shape.back()};
}

Shape fused_shape(const ModelConfig& config, WeightRole role, bool transposed) {
  const int64_t hidden = config.hidden, width = config.mlp.expert_width;
  const int64_t out = role == WeightRole::expert_down ? hidden : 2 * width;
  const int64_t in = role == WeightRole::expert_down ? width : hidden;
  return {config.router.experts, transposed ? in : out, transposed ? out : in};
}

void check_experts(Checker& checker, const Checkpoint& checkpoint, const CheckpointNaming& naming,
                   const ModelConfig& config, const WeightSpec& spec) {
  const ExpertLayout layout = expert_layout(checkpoint, naming, config, spec.layer);
  if (layout != ExpertLayout::per_expert) {
    const bool transposed = layout == ExpertLayout::fused_transposed;
    return checker.check(naming.fused_source(spec.layer, spec.role),
                         fused_shape(config, spec.role, transposed));
  }
  for (int expert = 0; expert < config.router.experts; ++expert) {
    const auto names = naming.expert_sources(spec.layer, spec.role, expert);
    for (size_t i = 0; i < names.size(); ++i) checker.check(names[i], part_shape(spec, i));
  }
}

}  // namespace

ExpertLayout expert_layout(const Checkpoint& checkpoint, const CheckpointNaming& naming,
                           const ModelConfig& config, int layer) {
  if (!naming.experts_fused(layer)) return ExpertLayout::per_expert;
  const auto fits = [&](WeightRole role, bool transposed) {
    return checkpoint.info(naming.fused_source(layer, role)).shape ==
           fused_shape(config, role, transposed);
  };
  for (const bool transposed : {false, true}) {
    if (fits(WeightRole::expert_gate_up, transposed) && fits(WeightRole::expert_down, transposed)) {
      return transposed ? ExpertLayout::fused_transposed : ExpertLayout::fused;
    }
  }
  const bool down_is_wrong =
      fits(WeightRole::expert_gate_up, false) || fits(WeightRole::expert_gate_up, true);
  const WeightRole role = down_is_wrong ? WeightRole::expert_down : WeightRole::expert_gate_up;
  const std::string name = naming.fused_source(layer, role);
  fail(checkpoint, name, "wrong shape of fused experts",
       describe_shape(fused_shape(config, role, false)) + " or " +
           describe_shape(fused_shape(config, role, true)) +
           ", gate_up_proj and down_proj in the same order",
       describe_shape(checkpoint.info(name).shape));
}

void check_checkpoint(const Checkpoint& checkpoint, const CheckpointNaming& naming,
                      const ModelConfig& config, std::span<const WeightSpec> specs) {
  Checker checker(checkpoint);
  for (const WeightSpec& spec : specs) {
    if (spec.of_experts()) {
      check_experts(checker, checkpoint, naming, config, spec);
      continue;
    }
    const std::vector<std::string> names = naming.sources(spec);
    for (size_t i = 0; i < names.size(); ++i) checker.check(names[i], part_shape(spec, i));
  }
  checker.check_nothing_else(naming);
}

}  // namespace farskip
