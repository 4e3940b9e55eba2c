#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "farskip/base/random.h"
#include "farskip/comm/collective.h"
#include "farskip/comm/group.h"

namespace farskip::testing {

using Matrix = std::vector<std::vector<int64_t>>;  // [sender][receiver] rows

// How many rows each rank sends to each other one.
Matrix uniform_rows(int ranks);
Matrix variable_rows(int ranks);
Matrix sparse_rows(int ranks);  // zero for some pairs
Matrix no_rows(int ranks);
Matrix one_sender_rows(int ranks);  // the last rank sends everything
Matrix asymmetric_rows(int ranks);  // only to lower ranks
struct NamedPattern {
  const char* name;
  Matrix (*rows)(int ranks);
};
const std::vector<NamedPattern>& all_patterns();

// A tensor with values that any dtype holds exactly and that differ from call to call.
at::Tensor sample(std::vector<int64_t> shape, at::ScalarType dtype, Random& random);
// Normally distributed, so that the order of a sum shows in its bits.
at::Tensor normal_sample(std::vector<int64_t> shape, at::ScalarType dtype, Random& random);

// One collective as all ranks take part in it, with the outputs that it must give, computed with
// other means than the library's.
struct Step {
  CollectiveKind kind = CollectiveKind::barrier;
  Tag tag = 0;
  int root = 0;
  Matrix rows;
  std::vector<at::Tensor> inputs, outputs, expected;  // by rank
  Event ready;

  Work post(Group& group) const;
};

Step all_to_all_step(const Matrix& rows, std::vector<int64_t> row_shape, at::ScalarType dtype,
                     Random& random);
// Any other kind; n: rows of the smaller tensor.
Step collective_step(CollectiveKind kind, int ranks, int64_t n, at::ScalarType dtype,
                     Random& random);
Step random_step(int ranks, Random& random);

// Scripts that any transport must carry out.
std::vector<Step> all_to_all_script(int ranks);        // every pattern and dtype
std::vector<Step> other_kinds_script(int ranks);       // every kind, dtype and size
std::vector<Step> mixed_script(int ranks, int steps);  // at random, back to back
std::vector<Step> in_place_script(int ranks);          // all_reduce

// Posts all steps on the ranks of `groups`, waits only then, and expects these ranks' outputs.
void run_and_check(const std::vector<std::unique_ptr<Group>>& groups,
                   const std::vector<Step>& steps);

// Same dtype, shape and bits.
bool same_bits(const at::Tensor& a, const at::Tensor& b);

}  // namespace farskip::testing
