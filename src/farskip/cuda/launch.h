#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace farskip::cuda {

// Throws Error naming `kernel` if the launch that went before failed. Called after every launch.
void check_launch(const char* kernel);

// Throws Error naming `call` unless `status` is success.
void check_call(cudaError_t status, const char* call);

// Multiprocessors of the current device.
int multiprocessors();

// The element types that kernels are built for.
enum class Element { f32, bf16 };

inline int64_t size_of(Element element) { return element == Element::f32 ? 4 : 2; }

// Bytes of one memory access of a thread.
inline constexpr int64_t access_bytes = 16;

// Choices of a token: one lane of a warp each.
inline constexpr int64_t max_choices = 32;

inline bool is_aligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % access_bytes == 0;
}

inline constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace farskip::cuda
