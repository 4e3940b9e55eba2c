#pragma once

#include <cstdint>

namespace farskip::cuda {

// Divides numbers below 2^31 by one that the host knows: a multiplication and a shift, where the
// hardware has no integer division.
class Divisor {
 public:
  explicit Divisor(uint32_t divisor) : divisor_(divisor) {
    while ((uint64_t{1} << shift_) < divisor) ++shift_;
    const uint64_t above = (uint64_t{1} << shift_) - divisor;
    multiplier_ = static_cast<uint32_t>((above << 32) / divisor + 1);
  }

  __device__ __forceinline__ uint32_t quotient(uint32_t number) const {
    return (__umulhi(number, multiplier_) + number) >> shift_;
  }
  __device__ __forceinline__ uint32_t divisor() const { return divisor_; }

 private:
  uint32_t divisor_, multiplier_ = 0, shift_ = 0;
};

}  // namespace farskip::cuda
