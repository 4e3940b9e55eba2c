#include "farskip/train/gradient_norm.h"

#include <ATen/Parallel.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>

#include <array>
#include <cmath>
#include <numeric>

#include "farskip/base/error.h"

namespace farskip {
namespace {

constexpr int64_t block = int64_t{1} << 14;  // elements

// In a fixed number of lanes: the compiler vectorises them, and the order of summation depends on
// the count alone.
template <typename Scalar>
double squares_of_block(const Scalar* values, int64_t count) {
  constexpr int64_t lanes = 16;
  std::array<double, lanes> partial{};
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const auto value = static_cast<double>(values[i + lane]);
      partial[lane] += value * value;
    }
  }
  for (int64_t lane = 0; i < count; ++i, ++lane) {
    const auto value = static_cast<double>(values[i]);
    partial[lane] += value * value;
  }
  return std::accumulate(partial.begin(), partial.end(), 0.0);
}

template <typename Scalar>
double squares_on_cpu(const at::Tensor& shard) {
  const auto* const values = shard.const_data_ptr<Scalar>();
  const int64_t count = shard.numel();
  std::vector<double> sums(static_cast<size_t>((count + block - 1) / block));
  at::parallel_for(0, static_cast<int64_t>(sums.size()), 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      sums[static_cast<size_t>(i)] =
          squares_of_block(values + i * block, std::min(block, count - i * block));
    }
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

double squares_on_cpu_of(const at::Tensor& shard) {
  switch (shard.scalar_type()) {
    case at::kFloat:
      return squares_on_cpu<float>(shard);
    case at::kBFloat16:
      return squares_on_cpu<at::BFloat16>(shard);
    default:
      return squares_on_cpu<double>(shard);
  }
}

void check(const at::Tensor& shard) {
  const at::ScalarType dtype = shard.scalar_type();
  const bool known = dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kDouble;
  if (known && shard.is_contiguous()) return;
  throw Error("gradient can not be summed",
              {.where = "gradient norm",
               .expected = "Float, BFloat16 or Double, contiguous",
               .found = c10::toString(dtype) + std::string(known ? ", strided" : "")});
}

// Norms of shards on a device, fetched together so that the host waits once a device.
class DeviceNorms {
 public:
  void add(const at::Tensor& shard) {
    norms_.push_back(at::linalg_vector_norm(shard, 2, std::nullopt, false, at::kDouble));
  }

  double sum_of_squares() const {
    if (norms_.empty()) return 0;
    const at::Tensor norms = at::stack(norms_).cpu();
    const std::span values(norms.const_data_ptr<double>(), norms_.size());
    return std::inner_product(values.begin(), values.end(), values.begin(), 0.0);
  }

 private:
  std::vector<at::Tensor> norms_;
};

}  // namespace

double sum_of_squares(std::span<const at::Tensor> shards) {
  double on_cpu = 0;
  DeviceNorms on_device;
  for (const at::Tensor& shard : shards) {
    if (!shard.defined() || shard.numel() == 0) continue;
    check(shard);
    if (shard.is_cpu()) {
      on_cpu += squares_on_cpu_of(shard);
    } else {
      on_device.add(shard);
    }
  }
  return on_cpu + on_device.sum_of_squares();
}

double rounded_squares(const at::Tensor& squares) {
  return static_cast<float>(squares.item<double>());
}

double clip_factor(double squares, double max_norm) {
  if (!(max_norm >= 0)) {
    throw ConfigError("wrong value", {.where = "gradient clipping: largest norm",
                                      .expected = "a number of at least 0, 0 for no clipping",
                                      .found = std::to_string(max_norm)});
  }
  const double norm = std::sqrt(squares);
  return max_norm == 0 || norm <= max_norm ? 1.0 : max_norm / norm;
}

std::string NonFinite::describe() const {
  return name + ": " + std::to_string(nans) + " NaN and " + std::to_string(infinities) +
         " infinite of its values, the first at " + std::to_string(first);
}

std::vector<NonFinite> find_non_finite(std::span<const NamedTensor> tensors) {
  std::vector<NonFinite> found;
  for (const NamedTensor& named : tensors) {
    if (!named.tensor.defined() || named.tensor.numel() == 0) continue;
    const at::Tensor wrong = at::isfinite(named.tensor).logical_not().flatten();
    const auto count = wrong.sum().item<int64_t>();
    if (count == 0) continue;
    const auto nans = at::isnan(named.tensor).sum().item<int64_t>();
    // The first of equal maxima.
    const auto first = wrong.to(at::kByte).argmax().item<int64_t>();
    found.push_back({.name = named.name, .nans = nans, .infinities = count - nans, .first = first});
  }
  return found;
}

}  // namespace farskip
