#include "farskip/comm/device_transfer.h"

#include <gtest/gtest.h>

#include "script.h"

namespace farskip {
namespace {

using namespace testing;

// Ranks one after the other on CPU tensors: what is queued there is done when the call returns.
void transfer_and_check(const Step& step) {
  const int ranks = static_cast<int>(step.inputs.size());
  std::vector<Collective> collectives;
  for (int rank = 0; rank < ranks; ++rank) {
    Collective own{.kind = step.kind, .tag = step.tag, .rank = rank, .size = ranks};
    own.root = step.root;
    own.in = step.inputs[rank];
    own.out = step.kind == CollectiveKind::broadcast ? own.in : step.outputs[rank];
    if (step.kind == CollectiveKind::all_to_all) {
      own.in_rows = step.rows[rank];
      for (int sender = 0; sender < ranks; ++sender) {
        own.out_rows.push_back(step.rows[sender][rank]);
      }
    }
    collectives.push_back(std::move(own));
  }
  std::vector<const Collective*> parts;
  for (const Collective& own : collectives) parts.push_back(&own);
  for (int rank = 0; rank < ranks; ++rank) device_transfer(parts, rank);
  for (int rank = 0; rank < ranks; ++rank) {
    if (step.kind == CollectiveKind::barrier) continue;
    EXPECT_TRUE(same_bits(collectives[rank].out, step.expected[rank]))
        << to_string(step.kind) << ", rank " << rank << " of " << ranks;
  }
}

TEST(DeviceTransfer, MovesAndSumsLikeTheCpu) {
  Random random(11);
  for (const int ranks : {1, 2, 3, 8}) {
    for (const auto& pattern : all_patterns()) {
      transfer_and_check(all_to_all_step(pattern.rows(ranks), {5}, at::kBFloat16, random));
    }
    for (const auto kind :
         {CollectiveKind::all_gather, CollectiveKind::reduce_scatter, CollectiveKind::all_reduce,
          CollectiveKind::broadcast, CollectiveKind::barrier}) {
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kLong}) {
        for (const int64_t n : {0, 1, 7, 700}) {
          transfer_and_check(collective_step(kind, ranks, n, dtype, random));
        }
      }
    }
  }
}

}  // namespace
}  // namespace farskip
