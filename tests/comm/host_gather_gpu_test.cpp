#include <ATen/Context.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "../gpu.h"
#include "farskip/comm/host_gather.h"
#include "farskip/comm/local.h"
#include "farskip/comm/ranks.h"

namespace farskip::testing {
namespace {

class HostGatherGpu : public GpuTest {
 protected:
  void TearDown() override { at::globalContext().setDeterministicAlgorithms(false, false); }
};

// Once a rank went on with a sum that was no number, behind the back of the other.
TEST_F(HostGatherGpu, BringsNumbersWhereNewMemoryIsFilled) {
  at::globalContext().setDeterministicAlgorithms(true, false);
  at::globalContext().setDeterministicFillUninitializedMemory(true);
  const auto groups = make_local_groups(2, {.device = at::Device(at::kCUDA, 0)});
  run_ranks(groups, [](Group& group) {
    const at::Tensor own = at::full({1}, 1.5 + group.rank(), at::kDouble);
    const at::Tensor large = at::ones({4096, 4096}, at::TensorOptions(at::kCUDA));
    for (int round = 0; round < 4; ++round) {
      at::Tensor product = large;
      for (int i = 0; i < 30; ++i)
        product = at::mm(product, large);  // work that fills queue behind
      const at::Tensor all = gather_on_host(group, own, 7);
      EXPECT_EQ(all.sum().item<double>(), 4.0);
    }
  });
}

}  // namespace
}  // namespace farskip::testing
