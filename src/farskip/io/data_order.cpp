#include "farskip/io/data_order.h"

#include <algorithm>
#include <bit>
#include <string>

#include "farskip/base/error.h"
#include "farskip/base/hash.h"

namespace farskip {
namespace {

// Four suffice for many windows; for ten or fewer, orders are only equally likely from eight on.
constexpr int rounds = 10;

// A permutation of the numbers of 2 * half_bits bits: a Feistel network (Luby and Rackoff 1988).
uint64_t scramble(uint64_t number, int half_bits, uint64_t key) {
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  uint64_t left = number >> half_bits, right = number & mask;
  for (int round = 0; round < rounds; ++round) {
    const uint64_t mixed = splitmix64(right ^ splitmix64(key + static_cast<uint64_t>(round)));
    // The high bits of the mix are its best.
    const uint64_t next = left ^ (mixed >> (64 - half_bits));
    left = right;
    right = next;
  }
  return left << half_bits | right;
}

}  // namespace

uint64_t window_count(uint64_t ids, int64_t sequence_length) {
  if (sequence_length < 1) {
    throw ConfigError(
        "wrong sequence length",
        {.where = {}, .expected = "at least 1", .found = std::to_string(sequence_length)});
  }
  return ids == 0 ? 0 : (ids - 1) / static_cast<uint64_t>(sequence_length);
}

DataOrder::DataOrder(uint64_t windows, uint64_t seed) : windows_(windows), seed_(seed) {
  if (windows < 1 || windows > uint64_t{1} << 62) {
    throw ConfigError("no order of so many windows",
                      {.where = {},
                       .expected = "1 to 2^62",
                       .found = std::to_string(windows),
                       .hint = "a text shorter than the sequence length has none"});
  }
  half_bits_ = std::max(1, (static_cast<int>(std::bit_width(windows - 1)) + 1) / 2);
}

uint64_t DataOrder::window_at(uint64_t place) const {
  const uint64_t key = splitmix64(seed_ ^ splitmix64(place / windows_));
  uint64_t number = place % windows_;
  // Numbers beyond the windows are walked through: what remains is a permutation still, and takes
  // four steps at most on average.
  do {
    number = scramble(number, half_bits_, key);
  } while (number >= windows_);
  return number;
}

std::vector<uint64_t> DataOrder::sequences_of_step(uint64_t step,
                                                   int64_t sequences_per_step) const {
  if (sequences_per_step < 1) {
    throw ConfigError(
        "wrong number of sequences a step",
        {.where = {}, .expected = "at least 1", .found = std::to_string(sequences_per_step)});
  }
  const auto count = static_cast<uint64_t>(sequences_per_step);
  std::vector<uint64_t> windows;
  windows.reserve(count);
  for (uint64_t i = 0; i < count; ++i) windows.push_back(window_at(step * count + i));
  return windows;
}

}  // namespace farskip
