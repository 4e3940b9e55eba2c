#include "farskip/train/flat_parameters.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "farskip/base/error.h"
#include "farskip/io/weight_specs.h"

namespace farskip {
namespace {

[[noreturn]] void fail(const ShardEntry& entry, const std::string& expected) {
  throw ConfigError("rank does not hold it", {.where = to_string(entry), .expected = expected});
}

// An expert's part of a stack.
at::Tensor expert_of(const at::Tensor& stack, const ShardEntry& entry,
                     const std::vector<int>& experts) {
  const auto place = std::lower_bound(experts.begin(), experts.end(), entry.expert);
  const bool held = place != experts.end() && *place == entry.expert &&
                    stack.size(0) == static_cast<int64_t>(experts.size());
  if (!held) fail(entry, "an expert of the rank");
  return stack.select(0, place - experts.begin());
}

}  // namespace

std::vector<FlatParameter> flat_parameters(const ModelConfig& config) {
  const auto one_rank = Placement::contiguous(config.router.experts, 1);
  std::vector<FlatParameter> parameters;
  for (const WeightSpec& spec : weight_specs(config, one_rank, 0, at::kFloat)) {
    const auto first = spec.shape.begin() + (spec.of_experts() ? 1 : 0);
    parameters.push_back(
        {.name = spec.name,
         .elements = std::accumulate(first, spec.shape.end(), int64_t{1}, std::multiplies<>()),
         .of_experts = spec.of_experts()});
  }
  return parameters;
}

at::Tensor entry_view(const std::map<std::string, at::Tensor>& tensors, const ShardEntry& entry,
                      const std::vector<int>& experts) {
  const auto found = tensors.find(entry.name);
  if (found == tensors.end()) fail(entry, "a parameter of the rank");
  const at::Tensor whole =
      entry.expert < 0 ? found->second : expert_of(found->second, entry, experts);
  const at::Tensor flat = whole.view(-1);
  if (entry.first < 0 || entry.count < 0 || entry.end() > flat.numel()) {
    fail(entry, "elements of [0:" + std::to_string(flat.numel()) + "]");
  }
  return flat.narrow(0, entry.first, entry.count);
}

}  // namespace farskip
