#pragma once

#include <cstdint>
#include <vector>

namespace farskip {

// Training reads a token file in windows of sequence_length + 1 ids: window w begins at id
// w * sequence_length and shares its last id with the next, so that every id but the first is
// predicted once. The (ids - 1) mod sequence_length ids behind the last whole window are left out.
// Throws ConfigError for sequence_length < 1.
uint64_t window_count(uint64_t ids, int64_t sequence_length);

// The order in which training takes windows: every epoch is a permutation of all of them that
// follows from the seed and the epoch's number. Steps take windows one after the other, from one
// epoch into the next, so none is ever left out. Nothing is stored and nothing depends on ranks:
// any place of the order is computed alone, in constant time. Immutable, any thread.
class DataOrder {
 public:
  // Throws ConfigError for no windows, or more than 2^62.
  DataOrder(uint64_t windows, uint64_t seed);

  uint64_t windows() const { return windows_; }
  // The window at a place of the endless order; epoch e has places [e * windows, (e + 1) *
  // windows).
  uint64_t window_at(uint64_t place) const;
  // The windows of a step, counted from 0: `sequences_per_step` places, the same for every step.
  // Throws ConfigError for fewer than 1.
  std::vector<uint64_t> sequences_of_step(uint64_t step, int64_t sequences_per_step) const;

 private:
  uint64_t windows_, seed_;
  int half_bits_;  // numbers of twice as many bits hold all windows
};

}  // namespace farskip
