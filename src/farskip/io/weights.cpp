#include "farskip/io/weights.h"

#include <ATen/ops/empty.h>

#include <set>

#include "farskip/base/error.h"
#include "farskip/io/checkpoint_check.h"
#include "farskip/io/naming.h"

namespace farskip {
namespace {

// Reads weights into fresh tensors. Pages of the mapping are given back after each tensor.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint, const ModelConfig& config, const CheckpointNaming& naming,
         const Placement& placement)
      : checkpoint_(checkpoint), config_(config), naming_(naming), placement_(placement) {}

  at::Tensor load_replicated(const WeightSpec& spec) const {
    at::Tensor weight = at::empty(spec.shape, at::TensorOptions().dtype(spec.dtype));
    read_stack(naming_.sources(spec), spec.parts, weight);
    return weight;
  }

  at::Tensor load_experts(const WeightSpec& spec, int rank) const {
    at::Tensor weight = at::empty(spec.shape, at::TensorOptions().dtype(spec.dtype));
    const ExpertLayout layout = expert_layout(checkpoint_, naming_, config_, spec.layer);
    const std::vector<int>& experts = placement_.experts_of(rank);
    for (size_t i = 0; i < experts.size(); ++i) {
      const at::Tensor destination = weight.select(0, static_cast<int64_t>(i));
      if (layout == ExpertLayout::per_expert) {
        read_stack(naming_.expert_sources(spec.layer, spec.role, experts[i]), spec.parts,
                   destination);
      } else {
        const bool transposed = layout == ExpertLayout::fused_transposed;
        read_fused(naming_.fused_source(spec.layer, spec.role), experts[i],
                   transposed ? destination.t() : destination);
      }
    }
    return weight;
  }

 private:
  void read_stack(const std::vector<std::string>& names, const std::vector<int64_t>& rows,
                  const at::Tensor& destination) const {
    int64_t begin = 0;
    for (size_t i = 0; i < names.size(); ++i) {
      checkpoint_.read_rows(names[i], 0, rows[i], destination.narrow(0, begin, rows[i]));
      checkpoint_.release(names[i]);
      begin += rows[i];
    }
  }

  void read_fused(const std::string& name, int expert, const at::Tensor& destination) const {
    const int64_t rows = destination.size(0);
    checkpoint_.read_rows(name, expert * rows, (expert + 1) * rows, destination);
    checkpoint_.release(name);
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const CheckpointNaming& naming_;
  const Placement& placement_;
};

void check_distinct(std::span<const int> ranks) {
  std::set<int> seen;
  for (int rank : ranks) {
    if (!seen.insert(rank).second) {
      throw ConfigError("rank comes twice",
                        {.expected = "each rank once", .found = std::to_string(rank)});
    }
  }
}

}  // namespace

std::vector<Weights> load_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                                  const Placement& placement, std::span<const int> ranks,
                                  at::ScalarType dtype) {
  check_distinct(ranks);
  const CheckpointNaming naming(config,
                                [&](const std::string& name) { return checkpoint.contains(name); });
  std::vector<std::vector<WeightSpec>> specs;
  for (int rank : ranks) specs.push_back(weight_specs(config, placement, rank, dtype));
  if (specs.empty()) return {};
  check_checkpoint(checkpoint, naming, config, specs.front());

  const Loader loader(checkpoint, config, naming, placement);
  std::vector<Weights> weights(ranks.size());
  for (size_t i = 0; i < specs.front().size(); ++i) {
    const WeightSpec& first = specs.front()[i];
    const at::Tensor shared = first.of_experts() ? at::Tensor() : loader.load_replicated(first);
    for (size_t r = 0; r < ranks.size(); ++r) {
      weights[r][first.name] =
          first.of_experts() ? loader.load_experts(specs[r][i], ranks[r]) : shared;
    }
  }
  if (config.tied_embeddings) {
    for (Weights& of_rank : weights) of_rank["head"] = of_rank.at("embedding");
  }
  return weights;
}

}  // namespace farskip
