#include <ATen/ops/empty.h>

#include "farskip/base/error.h"
#include "farskip/train/export.h"
#include "farskip/train/flat_parameters.h"

namespace farskip {
namespace {

ShardEntry entry_of(const WeightRows& rows) {
  const int64_t columns = rows.spec.shape.size() == 1 ? 1 : rows.spec.shape.back();
  return {.name = rows.spec.name,
          .expert = rows.expert,
          .first = rows.begin * columns,
          .count = rows.count * columns};
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
    const int rank = rows.expert < 0 ? 0 : placement.rank_of(rows.expert);
    const Weights& weights = of_ranks[static_cast<size_t>(rank)];
    return entry_view(weights, entry_of(rows), placement.experts_of(rank)).view(rows.shape());
  };
}

WeightSource weights_of_checkpoint(const TrainingCheckpoint& checkpoint) {
  return [&checkpoint](const WeightRows& rows) {
    StateShard shard{.entry = entry_of(rows)};
    shard.master = at::empty({shard.entry.count}, at::kFloat);
    checkpoint.read(std::span(&shard, 1));
    return shard.master.view(rows.shape());
  };
}

}  // namespace farskip
