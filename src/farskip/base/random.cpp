#include "farskip/base/random.h"

#include <bit>
#include <cmath>
#include <numbers>

#include "farskip/base/hash.h"

namespace farskip {

Random::Random(uint64_t seed) {
  for (uint64_t& word : state_) {
    word = splitmix64(seed);
    seed += 0x9E3779B97F4A7C15ULL;
  }
}

uint64_t Random::operator()() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

double Random::uniform() { return static_cast<double>((*this)() >> 11) * 0x1.0p-53; }

uint64_t Random::below(uint64_t bound) {
  if (bound == 0) return 0;
  // Draws from the incomplete last stretch of the range are thrown away.
  const uint64_t rejected = (0 - bound) % bound;
  uint64_t draw = (*this)();
  while (draw < rejected) draw = (*this)();
  return draw % bound;
}

double Random::normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_normal_;
  }
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));  // never log(0)
  const double angle = 2.0 * std::numbers::pi * uniform();
  spare_normal_ = radius * std::sin(angle);
  has_spare_ = true;
  return radius * std::cos(angle);
}

}  // namespace farskip
