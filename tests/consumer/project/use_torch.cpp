#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>

#include <cstdio>

#include "farskip/comm/local.h"
#include "farskip/comm/ranks.h"

int main() {
  farskip::run_ranks(farskip::make_local_groups(2), [](farskip::Group& group) {
    const at::Tensor mine = at::full({3}, group.rank() + 1);
    at::Tensor sum = at::empty_like(mine);
    group.all_reduce(sum, mine, 1).synchronize();
    if (group.rank() == 0) std::printf("sum %g\n", sum[2].item<double>());
  });
}
