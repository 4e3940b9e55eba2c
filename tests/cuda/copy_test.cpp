#include "farskip/cuda/copy.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/cuda/stream_gate.h"
#include "fill_gpu.h"
#include "gpu_test.h"

namespace farskip::cuda {
namespace {

using namespace std::chrono_literals;

class Copies : public testing::GpuTest {
 protected:
  c10::Stream new_stream() const {
    return c10::impl::VirtualGuardImpl(at::kCUDA).getStreamFromGlobalPool({at::kCUDA, 0}, true);
  }
};

// Kernel code is loaded at its first launch, for which the driver waits for the device.
void load_fill_kernel(uint32_t* flags, const c10::Stream& stream) {
  flags[0] = 1;
  fill_gpu(flags, flags + 1, c10::cuda::CUDAStream(stream).stream(), blocks_that_fill_gpu());
  cudaDeviceSynchronize();
  flags[0] = flags[1] = 0;
}

TEST_F(Copies, CopyTheRowsTheyAreTold) {
  const at::Tensor from = at::arange(1000, at::kInt).to(at::kCUDA);
  const at::Tensor to = at::empty({1000}, from.options()).zero_();
  const RowCopy copies[] = {{0, 500, 300}, {300, 3, 0}, {400, 1, 7}};
  // Rows that begin at any byte, and more copies than a launch takes.
  const at::Tensor odd_from =
      at::arange(10100, at::kInt).to(at::kCUDA).to(at::kByte).view({100, 101});
  const at::Tensor odd_to = at::empty_like(odd_from);
  std::vector<RowCopy> many;
  for (int64_t i = 0; i < 100; ++i) many.push_back({99 - i, i, 1});
  const c10::Stream stream = new_stream();
  cudaDeviceSynchronize();
  {
    const c10::StreamGuard guard(stream);
    copy_rows_beside_compute(to, from, copies);
    copy_rows_beside_compute(to, from, {});
    copy_rows_beside_compute(odd_to, odd_from, many);
  }
  cudaDeviceSynchronize();
  EXPECT_TRUE(at::equal(odd_to.flip(0), odd_from));
  const at::Tensor host = to.cpu();
  EXPECT_TRUE(at::equal(host.narrow(0, 0, 300), at::arange(500, 800, at::kInt)));
  EXPECT_TRUE(at::equal(host.narrow(0, 400, 7), at::arange(1, 8, at::kInt)));
  EXPECT_EQ(host.narrow(0, 300, 100).count_nonzero().item<int64_t>(), 0);
}

TEST_F(Copies, RefuseRowsThatAreNotThere) {
  const at::Tensor x = at::empty({10, 4}, at::TensorOptions(at::kFloat).device(at::kCUDA));
  const at::Tensor narrow = at::empty({10, 3}, x.options());
  const RowCopy behind[] = {{0, 8, 3}}, before[] = {{-1, 0, 1}}, one[] = {{0, 0, 1}};
  EXPECT_THROW(copy_rows_beside_compute(x, x, behind), Error);
  EXPECT_THROW(copy_rows_beside_compute(x, x, before), Error);
  EXPECT_THROW(copy_rows_beside_compute(narrow, x, one), Error);
}

// To hold a stream and to announce nothing of a multiprocessor is needed.
TEST_F(Copies, GatesPassWhileEveryMultiprocessorIsTaken) {
  const c10::Stream filled = new_stream(), held = new_stream();
  uint32_t* flags = nullptr;
  ASSERT_EQ(cudaHostAlloc(reinterpret_cast<void**>(&flags), 8, cudaHostAllocMapped), cudaSuccess);
  load_fill_kernel(flags, filled);
  StreamGate gate;
  fill_gpu(flags, flags + 1, c10::cuda::CUDAStream(filled).stream(), blocks_that_fill_gpu());
  const auto start = std::chrono::steady_clock::now();
  const auto waited = [&] { return std::chrono::steady_clock::now() - start; };
  std::atomic_ref<uint32_t> running(flags[1]);
  while (running.load() < blocks_that_fill_gpu() && waited() < 1s) std::this_thread::yield();
  ASSERT_EQ(running.load(), blocks_that_fill_gpu()) << "the kernel does not fill this GPU";
  gate.hold(held, 1);
  gate.announce(held, 1);
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(gate.announced(), 0u) << "the gate did not hold";
  gate.raise(1);
  while (gate.announced() < 1 && waited() < 1500ms) std::this_thread::yield();
  const bool passed = gate.announced() == 1;
  std::atomic_ref<uint32_t>(flags[0]).store(1);
  cudaDeviceSynchronize();
  cudaFreeHost(flags);
  EXPECT_TRUE(passed) << "a gate needed a multiprocessor";
}

}  // namespace
}  // namespace farskip::cuda
