#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

namespace farskip {

// A small random generator (xoshiro256**, seeded through splitmix64). A seed gives the same
// integers and uniforms on every machine; normal() goes through the C library's log and cos, which
// may differ in the last bit between machines. Also a uniform random bit generator for <random>,
// whose distributions are not the same everywhere: prefer the members. One thread.
class Random {
 public:
  using result_type = uint64_t;

  explicit Random(uint64_t seed);

  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return std::numeric_limits<uint64_t>::max(); }
  uint64_t operator()();

  // In [0, 1), 53 random bits.
  double uniform();
  // In [low, high).
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  // An integer in [0, bound), without bias; 0 for bound 0.
  uint64_t below(uint64_t bound);
  // Mean 0, variance 1 (Box-Muller).
  double normal();

  // Every order of [first, last) is equally likely.
  template <typename Iterator>
  void shuffle(Iterator first, Iterator last) {
    for (auto left = last - first; left > 1; --left) {
      std::swap(first[left - 1],
                first[static_cast<std::ptrdiff_t>(below(static_cast<uint64_t>(left)))]);
    }
  }

 private:
  std::array<uint64_t, 4> state_;
  double spare_normal_ = 0;
  bool has_spare_ = false;
};

}  // namespace farskip
