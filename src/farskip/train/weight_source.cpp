#include <ATen/ops/empty.h>

#include <algorithm>

#include "farskip/base/error.h"
#include "farskip/train/export.h"

namespace farskip {
namespace {

// Where a rank keeps an expert in its stacks.
int64_t place_of(int expert, const std::vector<int>& experts) {
  return std::lower_bound(experts.begin(), experts.end(), expert) - experts.begin();
}

}  // namespace

std::vector<int64_t> WeightRows::shape() const {
  if (spec.shape.size() == 1) return {count};
  return {count, spec.shape.back()};
}

WeightSource weights_of_ranks(std::span<const Weights> of_ranks, const Placement& placement) {
  if (static_cast<int>(of_ranks.size()) != placement.ranks()) {
    throw ConfigError("weights are not those of the placement",
                      {.where = "weights of ranks",
                       .expected = std::to_string(placement.ranks()) + " ranks",
                       .found = std::to_string(of_ranks.size())});
  }
  return [of_ranks, placement](const WeightRows& rows) {
    if (rows.expert < 0) {
      return of_ranks.front().at(rows.spec.name).narrow(0, rows.begin, rows.count);
    }
    const int rank = placement.rank_of(rows.expert);
    const at::Tensor& stack = of_ranks[static_cast<size_t>(rank)].at(rows.spec.name);
    return stack.select(0, place_of(rows.expert, placement.experts_of(rank)))
        .narrow(0, rows.begin, rows.count);
  };
}

WeightSource weights_of_checkpoint(const TrainingCheckpoint& checkpoint) {
  return [&checkpoint](const WeightRows& rows) {
    const std::vector<int64_t> shape = rows.shape();
    const int64_t columns = shape.size() == 1 ? 1 : shape.back();
    const StateShard shard{.entry = {.name = rows.spec.name,
                                     .expert = rows.expert,
                                     .first = rows.begin * columns,
                                     .count = rows.count * columns},
                           .master = at::empty({rows.count * columns}, at::kFloat)};
    checkpoint.read(std::span(&shard, 1));
    return shard.master.view(shape);
  };
}

}  // namespace farskip
