#include "farskip/eval/scoring.h"

#include <ATen/ops/gather.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <string>

#include "farskip/base/error.h"

namespace farskip {
namespace {

// Rows of logits that are normalized at a time: they are copied.
constexpr int64_t rows_at_once = 512;

// The log-probability of targets[i] by row rows[i] of the logits.
std::vector<double> log_probabilities_of(const at::Tensor& logits, const std::vector<int64_t>& rows,
                                         const std::vector<int64_t>& targets) {
  const at::Tensor all_rows = at::tensor(rows, at::kLong).to(logits.device());
  const at::Tensor all_targets = at::tensor(targets, at::kLong).to(logits.device());
  std::vector<double> result;
  result.reserve(rows.size());
  const auto count = static_cast<int64_t>(rows.size());
  for (int64_t first = 0; first < count; first += rows_at_once) {
    const int64_t size = std::min(rows_at_once, count - first);
    const at::Tensor part = at::index_select(logits, 0, all_rows.narrow(0, first, size));
    const at::Tensor index = all_targets.narrow(0, first, size).unsqueeze(1);
    const at::Tensor values = at::gather(at::log_softmax(part, 1), 1, index).cpu();
    const float* const value = values.const_data_ptr<float>();
    result.insert(result.end(), value, value + size);
  }
  return result;
}

}  // namespace

std::vector<double> log_probabilities(const at::Tensor& logits, std::span<const Request> requests) {
  std::vector<int64_t> rows, targets;
  int64_t begin = 0, largest = -1;
  for (const Request& request : requests) {
    // The row of an input is what the model says of the id behind it.
    for (int64_t i = request.inputs() - request.scored; i < request.inputs(); ++i) {
      rows.push_back(begin + i);
      targets.push_back(request.ids[static_cast<size_t>(i + 1)]);
      largest = std::max(largest, targets.back());
    }
    begin += request.inputs();
  }
  if (logits.size(0) != begin || largest >= logits.size(1)) {
    throw Error("logits do not fit the requests",
                {.where = {},
                 .expected = std::to_string(begin) + " rows, more than " + std::to_string(largest) +
                             " columns",
                 .found = std::to_string(logits.size(0)) + " x " + std::to_string(logits.size(1))});
  }
  const auto each = log_probabilities_of(logits, rows, targets);
  std::vector<double> sums;
  auto next = each.begin();
  for (const Request& request : requests) {
    double sum = 0;
    for (int64_t i = 0; i < request.scored; ++i) sum += *next++;
    sums.push_back(sum);
  }
  return sums;
}

}  // namespace farskip
