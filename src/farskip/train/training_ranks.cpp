#include "farskip/train/training_ranks.h"

#include <ATen/ops/tensor.h>

#include "farskip/comm/gather_texts.h"
#include "farskip/comm/host_gather.h"

namespace farskip {
namespace {

constexpr Tag sum_tag = -10;

std::vector<double> sum_rows(const at::Tensor& all, size_t columns) {
  const double* value = all.const_data_ptr<double>();
  std::vector<double> sums(columns, 0);
  for (int64_t read = 0; read < all.numel(); read += static_cast<int64_t>(columns)) {
    for (double& sum : sums) sum += *value++;
  }
  return sums;
}

}  // namespace

std::vector<double> TrainingRanks::sum(const std::vector<double>& own) const {
  at::Tensor all = gather_on_host(within_, at::tensor(own, at::kDouble), sum_tag);
  if (between_) all = gather_on_host(*between_, all, sum_tag);
  return sum_rows(all, own.size());
}

std::vector<double> TrainingRanks::sum_within(const std::vector<double>& own) const {
  return sum_rows(gather_on_host(within_, at::tensor(own, at::kDouble), sum_tag), own.size());
}

at::Tensor TrainingRanks::sum_over_stages(const at::Tensor& own) const {
  if (!between_) return own;
  std::vector<int64_t> shape = own.sizes().vec();
  shape.insert(shape.begin(), stages());
  return gather_on_host(*between_, own, sum_tag).view(shape).sum(0);
}

std::vector<std::string> TrainingRanks::gather_texts(Tag tag, const std::string& own) const {
  if (!between_) return farskip::gather_texts(within_, tag, own);
  std::vector<std::string> all;
  for (const std::string& text : farskip::gather_texts(*between_, tag, own)) {
    for (std::string& of_stage : farskip::gather_texts(within_, tag, text)) {
      all.push_back(std::move(of_stage));
    }
  }
  return all;
}

RankMeeting TrainingRanks::meeting(Tag tag) const {
  return {.rank = rank(), .ranks = size(), .gather = [ranks = *this, tag](const std::string& own) {
            return ranks.gather_texts(tag, own);
          }};
}

}  // namespace farskip
