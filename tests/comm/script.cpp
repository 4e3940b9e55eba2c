#include "script.h"

#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cstring>

#include "farskip/comm/ranks.h"

namespace farskip::testing {
namespace {

template <typename Rows>
Matrix make_rows(int ranks, const Rows& rows) {
  Matrix matrix(static_cast<size_t>(ranks), std::vector<int64_t>(static_cast<size_t>(ranks)));
  for (int s = 0; s < ranks; ++s) {
    for (int r = 0; r < ranks; ++r) {
      matrix[static_cast<size_t>(s)][static_cast<size_t>(r)] = rows(s, r);
    }
  }
  return matrix;
}

int64_t total(const std::vector<int64_t>& rows) {
  int64_t sum = 0;
  for (const int64_t count : rows) sum += count;
  return sum;
}

std::vector<int64_t> column(const Matrix& matrix, size_t receiver) {
  std::vector<int64_t> rows;
  for (const auto& of_sender : matrix) rows.push_back(of_sender[receiver]);
  return rows;
}

std::vector<int64_t> with_rows(int64_t rows, std::vector<int64_t> row_shape) {
  row_shape.insert(row_shape.begin(), rows);
  return row_shape;
}

// In rank order; 16-bit floats in float.
at::Tensor ordered_sum(const std::vector<at::Tensor>& parts) {
  const at::ScalarType dtype = parts[0].scalar_type();
  const bool narrow = dtype == at::kBFloat16 || dtype == at::kHalf;
  at::Tensor sum = narrow ? parts[0].to(at::kFloat) : parts[0].clone();
  for (size_t r = 1; r < parts.size(); ++r) sum = at::add(sum, parts[r].to(sum.scalar_type()));
  return sum.to(dtype);
}

}  // namespace

Matrix uniform_rows(int ranks) {
  return make_rows(ranks, [](int, int) { return 3; });
}
Matrix variable_rows(int ranks) {
  return make_rows(ranks, [](int s, int r) { return 1 + (5 * s + 3 * r) % 7; });
}
Matrix sparse_rows(int ranks) {
  return make_rows(ranks, [](int s, int r) { return (s + r) % 2 == 0 ? 0 : s + 2; });
}
Matrix no_rows(int ranks) {
  return make_rows(ranks, [](int, int) { return 0; });
}
Matrix one_sender_rows(int ranks) {
  return make_rows(ranks, [ranks](int s, int r) { return s == ranks - 1 ? 4 + r : 0; });
}
Matrix asymmetric_rows(int ranks) {
  return make_rows(ranks, [](int s, int r) { return s > r ? s - r : 0; });
}

const std::vector<NamedPattern>& all_patterns() {
  static const std::vector<NamedPattern> patterns = {
      {"uniform", uniform_rows}, {"variable", variable_rows},     {"sparse", sparse_rows},
      {"none", no_rows},         {"one_sender", one_sender_rows}, {"asymmetric", asymmetric_rows},
  };
  return patterns;
}

at::Tensor sample(std::vector<int64_t> shape, at::ScalarType dtype, Random& random) {
  at::Tensor values = at::empty(shape, at::kLong);
  for (int64_t i = 0; i < values.numel(); ++i) {
    values.mutable_data_ptr<int64_t>()[i] = static_cast<int64_t>(random.below(100));
  }
  return values.to(dtype);
}

at::Tensor normal_sample(std::vector<int64_t> shape, at::ScalarType dtype, Random& random) {
  at::Tensor values = at::empty(shape, at::kDouble);
  for (int64_t i = 0; i < values.numel(); ++i) {
    values.mutable_data_ptr<double>()[i] = random.normal() * 1000;
  }
  return values.to(dtype);
}

Work Step::post(Group& group) const {
  const auto rank = static_cast<size_t>(group.rank());
  switch (kind) {
    case CollectiveKind::all_to_all:
      return group.all_to_all(outputs[rank], inputs[rank], column(rows, rank), rows[rank], tag,
                              ready);
    case CollectiveKind::all_gather:
      return group.all_gather(outputs[rank], inputs[rank], tag, ready);
    case CollectiveKind::reduce_scatter:
      return group.reduce_scatter(outputs[rank], inputs[rank], tag, ready);
    case CollectiveKind::all_reduce:
      return group.all_reduce(outputs[rank], inputs[rank], tag, ready);
    case CollectiveKind::broadcast:
      return group.broadcast(outputs[rank], root, tag, ready);
    case CollectiveKind::barrier:
      return group.barrier(tag);
    case CollectiveKind::send:
    case CollectiveKind::receive:
      break;  // a script is of what all ranks take part in
  }
  return {};
}

Step all_to_all_step(const Matrix& rows, std::vector<int64_t> row_shape, at::ScalarType dtype,
                     Random& random) {
  Step step{.kind = CollectiveKind::all_to_all, .rows = rows};
  for (const auto& of_sender : rows) {
    step.inputs.push_back(sample(with_rows(total(of_sender), row_shape), dtype, random));
  }
  for (size_t receiver = 0; receiver < rows.size(); ++receiver) {
    step.outputs.push_back(
        sample(with_rows(total(column(rows, receiver)), row_shape), dtype, random));
    std::vector<at::Tensor> parts;
    for (size_t sender = 0; sender < rows.size(); ++sender) {
      int64_t before = 0;
      for (size_t r = 0; r < receiver; ++r) before += rows[sender][r];
      parts.push_back(step.inputs[sender].narrow(0, before, rows[sender][receiver]));
    }
    step.expected.push_back(at::cat(parts));
  }
  return step;
}

Step collective_step(CollectiveKind kind, int ranks, int64_t n, at::ScalarType dtype,
                     Random& random) {
  Step step{.kind = kind};
  if (kind == CollectiveKind::barrier) return step;
  const bool scatter = kind == CollectiveKind::reduce_scatter;
  const bool gather = kind == CollectiveKind::all_gather;
  for (int r = 0; r < ranks; ++r) {
    step.inputs.push_back(normal_sample({scatter ? n * ranks : n, 3}, dtype, random));
    step.outputs.push_back(sample({gather ? n * ranks : n, 3}, dtype, random));
  }
  if (kind == CollectiveKind::broadcast) {
    step.root = static_cast<int>(random.below(static_cast<uint64_t>(ranks)));
    step.outputs = step.inputs;
    step.inputs.clear();
  }
  for (int r = 0; r < ranks; ++r) {
    if (gather) {
      step.expected.push_back(at::cat(step.inputs));
    } else if (kind == CollectiveKind::broadcast) {
      step.expected.push_back(step.outputs[static_cast<size_t>(step.root)].clone());
    } else {
      const at::Tensor sum = ordered_sum(step.inputs);
      step.expected.push_back(scatter ? sum.narrow(0, n * r, n).contiguous() : sum);
    }
  }
  return step;
}

Step random_step(int ranks, Random& random) {
  constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kBFloat16, at::kDouble, at::kLong};
  const at::ScalarType dtype = kDtypes[random.below(4)];
  const auto kind = static_cast<CollectiveKind>(random.below(6));
  if (kind == CollectiveKind::all_to_all) {
    const auto rows = make_rows(ranks, [&](int, int) {
      return random.below(3) == 0 ? 0 : static_cast<int64_t>(random.below(9));
    });
    return all_to_all_step(rows, {static_cast<int64_t>(random.below(40))}, dtype, random);
  }
  return collective_step(kind, ranks, static_cast<int64_t>(random.below(60)), dtype, random);
}

std::vector<Step> all_to_all_script(int ranks) {
  Random random(1);
  std::vector<Step> steps;
  for (const auto& pattern : all_patterns()) {
    for (const at::ScalarType dtype :
         {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble, at::kLong, at::kByte, at::kBool}) {
      steps.push_back(all_to_all_step(pattern.rows(ranks), {5}, dtype, random));
    }
    steps.push_back(all_to_all_step(pattern.rows(ranks), {}, at::kFloat, random));
    steps.push_back(all_to_all_step(pattern.rows(ranks), {0}, at::kFloat, random));
    steps.push_back(all_to_all_step(pattern.rows(ranks), {2, 3}, at::kLong, random));
  }
  return steps;
}

std::vector<Step> other_kinds_script(int ranks) {
  Random random(2);
  std::vector<Step> steps;
  for (const auto kind :
       {CollectiveKind::all_gather, CollectiveKind::reduce_scatter, CollectiveKind::all_reduce,
        CollectiveKind::broadcast, CollectiveKind::barrier}) {
    for (const at::ScalarType dtype :
         {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble, at::kLong, at::kInt}) {
      for (const int64_t n : {0, 1, 7, 700}) {
        steps.push_back(collective_step(kind, ranks, n, dtype, random));
      }
    }
  }
  return steps;
}

std::vector<Step> mixed_script(int ranks, int count) {
  Random random(3);
  std::vector<Step> steps;
  for (int i = 0; i < count; ++i) {
    steps.push_back(random_step(ranks, random));
    steps.back().tag = i * 7;
  }
  return steps;
}

std::vector<Step> in_place_script(int ranks) {
  Random random(4);
  std::vector<Step> steps;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kLong}) {
    for (const int64_t n : {1, 50, 3000}) {
      steps.push_back(collective_step(CollectiveKind::all_reduce, ranks, n, dtype, random));
      steps.back().outputs = steps.back().inputs;
    }
  }
  return steps;
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         (a.nbytes() == 0 ||
          std::memcmp(a.const_data_ptr(), b.contiguous().const_data_ptr(), a.nbytes()) == 0);
}

void run_and_check(const std::vector<std::unique_ptr<Group>>& groups,
                   const std::vector<Step>& steps) {
  run_ranks(groups, [&](Group& group) {
    std::vector<Work> works;
    for (const Step& step : steps) works.push_back(step.post(group));
    for (const Work& work : works) work.synchronize();
    for (const Work& work : works) {
      const WorkTimes times = work.times();
      EXPECT_TRUE(work.done());
      EXPECT_LE(times.posted, times.started);
      EXPECT_LE(times.started, times.finished);
    }
  });
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].expected.empty()) continue;
    for (const auto& group : groups) {
      const auto rank = static_cast<size_t>(group->rank());
      EXPECT_TRUE(same_bits(steps[i].outputs[rank], steps[i].expected[rank]))
          << to_string(steps[i].kind) << " " << i << " on rank " << rank;
    }
  }
}

}  // namespace farskip::testing
