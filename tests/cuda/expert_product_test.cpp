#include "farskip/cuda/expert_product.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/tensor.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/cuda/device.h"
#include "farskip/nn/mlp.h"
#include "fill_gpu.h"
#include "gpu_test.h"

namespace farskip::testing {
namespace {

using namespace std::chrono_literals;

class CudaExpertProduct : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    const at::Tensor x = at::empty({8, 8}, at::TensorOptions(at::kCUDA).dtype(at::kBFloat16));
    if (!cuda::has_expert_product(x, x))
      GTEST_SKIP() << "no matrix units of sm_90: " << cuda_version();
  }
};

struct Case {
  std::vector<int> rows;  // of each expert
  int64_t depth, width;
};

const Case cases[] = {
    {{77}, 64, 64},                             // one expert, in part of a tile
    {{3, 0, 300}, 72, 40},                      // a depth and a width that tiles do not divide
    {{0, 128, 129, 256, 255, 1, 0}, 256, 384},  // on either side of the tiles' edges
    {{1, 1, 0, 1}, 1024, 136},
    {std::vector<int>(40, 33), 512, 256},
    {{700, 900}, 128, 1408},
    {{0, 0}, 64, 64},
};

// On the GPU: `spare` rows behind the last, and where rows lie before they lie by expert.
struct Work {
  explicit Work(const Case& c, int64_t spare = 19)
      : there(std::accumulate(c.rows.begin(), c.rows.end(), int64_t{0})),
        rows(there + spare),
        in(on_gpu(random({rows, c.depth}, 1, at::kBFloat16))),
        gate_up(on_gpu(random({experts(c), 2 * c.width, c.depth}, 2, at::kBFloat16))),
        matrices(gate_up.narrow(1, 0, c.width).contiguous()) {
    std::vector<int> sums(c.rows.size());
    std::partial_sum(c.rows.begin(), c.rows.end(), sums.begin());
    ends = on_gpu(at::tensor(sums, at::kInt));
    const at::Tensor none = at::full({spare}, -1, at::kLong);
    order = on_gpu(at::cat({at::randperm(there, at::kLong), none}));
  }

  static int64_t experts(const Case& c) { return static_cast<int64_t>(c.rows.size()); }

  // Rows in the order of `order`.
  at::Tensor ordered() const {
    return at::cat(
        {in.index_select(0, order.narrow(0, 0, there)), in.narrow(0, there, rows - there)});
  }

  int64_t there, rows;
  at::Tensor in, gate_up, matrices, ends, order;
};

// Expert by expert, by a library.
at::Tensor expected_product(const Case& c, const at::Tensor& rows, const at::Tensor& matrices) {
  std::vector<at::Tensor> parts{rows.new_empty({0, matrices.size(1)})};
  int64_t first = 0;
  for (size_t e = 0; e < c.rows.size(); ++e) {
    const at::Tensor matrix = matrices.select(0, static_cast<int64_t>(e));
    parts.push_back(at::mm(rows.narrow(0, first, c.rows[e]), matrix.t()));
    first += c.rows[e];
  }
  return at::cat(parts);
}

at::Tensor expected_swiglu(const Case& c, const at::Tensor& rows, const at::Tensor& gate_up) {
  const at::Tensor products = expected_product(c, rows, gate_up);
  const at::Tensor out = at::empty({products.size(0), c.width}, products.options());
  silu_multiply_out(out, products);
  return out;
}

// Sums of another order round to the other side now and then.
void expect_near(const at::Tensor& found, const at::Tensor& expected) {
  EXPECT_LT(elementwise_error(found, expected.cpu(), 0.1), 1.0 / 32);
}

TEST_F(CudaExpertProduct, IsEachExpertsOwn) {
  for (const Case& c : cases) {
    const Work w(c);
    const at::Tensor out = poisoned({w.rows, c.width}, at::kBFloat16);
    cuda::expert_product_out(out, w.in, w.matrices, w.ends);
    expect_near(out.narrow(0, 0, w.there), expected_product(c, w.in, w.matrices));
    EXPECT_TRUE(out.narrow(0, w.there, w.rows - w.there).isnan().all().item<bool>());
  }
}

TEST_F(CudaExpertProduct, PutsRowsWhereTheyBelong) {
  for (const Case& c : cases) {
    const Work w(c);
    const at::Tensor plain = poisoned({w.rows, c.width}, at::kBFloat16);
    const at::Tensor placed = poisoned({w.rows, c.width}, at::kBFloat16);
    cuda::expert_product_out(plain, w.in, w.matrices, w.ends);
    cuda::expert_product_out(placed, w.in, w.matrices, w.ends, w.order);
    const at::Tensor back = placed.index_select(0, w.order.narrow(0, 0, w.there));
    EXPECT_TRUE(at::equal(back, plain.narrow(0, 0, w.there)));
    EXPECT_TRUE(placed.narrow(0, w.there, w.rows - w.there).isnan().all().item<bool>());
  }
}

TEST_F(CudaExpertProduct, SwigluIsEachExpertsOwn) {
  for (const Case& c : cases) {
    const Work w(c);
    const at::Tensor out = poisoned({w.rows, c.width}, at::kBFloat16);
    cuda::expert_swiglu_out(out, w.in, w.gate_up, w.ends);
    expect_near(out.narrow(0, 0, w.there), expected_swiglu(c, w.in, w.gate_up));
    EXPECT_TRUE(out.narrow(0, w.there, w.rows - w.there).isnan().all().item<bool>());
  }
}

TEST_F(CudaExpertProduct, GathersRowsWithTheSameBits) {
  for (const Case& c : cases) {
    const Work w(c);
    const at::Tensor plain = poisoned({w.rows, c.width}, at::kBFloat16);
    const at::Tensor gathered = poisoned({w.rows, c.width}, at::kBFloat16);
    cuda::expert_swiglu_out(plain, w.ordered(), w.gate_up, w.ends);
    cuda::expert_swiglu_out(gathered, w.in, w.gate_up, w.ends, w.order);
    EXPECT_TRUE(at::equal(gathered.narrow(0, 0, w.there), plain.narrow(0, 0, w.there)));
    EXPECT_TRUE(gathered.narrow(0, w.there, w.rows - w.there).isnan().all().item<bool>());
  }
}

// Several choices of a token each come from its one row.
TEST_F(CudaExpertProduct, GathersTheRowsOfSlots) {
  const Case c{{90, 0, 210, 4}, 136, 72};
  const Work w(c, 0);
  const at::Tensor tokens = w.in.narrow(0, 0, w.there / 4);
  const at::Tensor slots = tokens.repeat_interleave(4, 0).index_select(0, w.order);
  const at::Tensor plain = poisoned({w.there, c.width}, at::kBFloat16);
  const at::Tensor gathered = poisoned({w.there, c.width}, at::kBFloat16);
  cuda::expert_swiglu_out(plain, slots, w.gate_up, w.ends);
  cuda::expert_swiglu_out(gathered, tokens, w.gate_up, w.ends, w.order, 4);
  EXPECT_TRUE(at::equal(gathered, plain));
}

// Whether blocks work alone or two together is chosen by the number of rows.
TEST_F(CudaExpertProduct, BitsDoNotDependOnOtherRows) {
  const Case many{{5000}, 512, 2816};
  const Work w(many, 0);
  const at::Tensor whole = poisoned({5000, many.width}, at::kBFloat16);
  cuda::expert_swiglu_out(whole, w.in, w.gate_up, {});
  for (const auto& [first, rows] : {std::pair{0, 1}, {130, 100}, {999, 700}, {0, 4999}}) {
    const at::Tensor some = poisoned({rows, many.width}, at::kBFloat16);
    cuda::expert_swiglu_out(some, w.in.narrow(0, first, rows), w.gate_up, {});
    EXPECT_TRUE(at::equal(some, whole.narrow(0, first, rows))) << first << ", " << rows;
  }
}

// As beside a collective: blocks that find no multiprocessor must not keep tiles from the others.
TEST_F(CudaExpertProduct, EndsWhileOtherKernelsHoldMultiprocessors) {
  const Case c{{4000, 1, 6000}, 512, 1408};
  const Work w(c, 0);
  const at::Tensor alone = poisoned({w.there, c.width}, at::kBFloat16);
  const at::Tensor beside = poisoned({w.there, c.width}, at::kBFloat16);
  cuda::expert_swiglu_out(alone, w.in, w.gate_up, w.ends, w.order);
  uint32_t* flags = nullptr;
  ASSERT_EQ(cudaHostAlloc(reinterpret_cast<void**>(&flags), 8, cudaHostAllocMapped), cudaSuccess);
  std::atomic_ref<uint32_t> release(flags[0]), running(flags[1]);
  const auto other = c10::cuda::getStreamFromPool();
  // Loads the kernel: until then the driver may wait for what runs.
  release = 1;
  cuda::fill_gpu(flags, flags + 1, other.stream(), 1);
  cudaDeviceSynchronize();
  release = running = 0;
  cuda::fill_gpu(flags, flags + 1, other.stream(), 40);
  const auto start = std::chrono::steady_clock::now();
  const auto in_time = [&] { return std::chrono::steady_clock::now() - start < 1500ms; };
  while (running < 40 && in_time()) std::this_thread::yield();
  cuda::expert_swiglu_out(beside, w.in, w.gate_up, w.ends, w.order);
  const auto product = c10::cuda::getCurrentCUDAStream();
  while (!product.query() && in_time()) std::this_thread::yield();
  const bool ended = product.query() && !other.query();
  release = 1;
  cudaDeviceSynchronize();
  cudaFreeHost(flags);
  EXPECT_TRUE(ended);
  EXPECT_TRUE(at::equal(beside, alone));
}

TEST_F(CudaExpertProduct, RefusesWhatDoesNotFit) {
  const at::TensorOptions bf16 = at::TensorOptions(at::kCUDA).dtype(at::kBFloat16);
  const at::Tensor rows = at::empty({16, 32}, bf16), out = at::empty({16, 64}, bf16);
  const at::Tensor matrices = at::empty({2, 64, 32}, bf16);
  const at::Tensor ends = at::full({2}, 8, bf16.dtype(at::kInt));
  const at::Tensor order = at::arange(16, bf16.dtype(at::kLong));
  EXPECT_NO_THROW(cuda::expert_product_out(out, rows, matrices, ends, order));
  EXPECT_THROW(cuda::expert_product_out(out, rows, matrices, {}), Error);
  EXPECT_THROW(cuda::expert_product_out(out, rows, matrices, ends.narrow(0, 0, 1)), Error);
  EXPECT_THROW(cuda::expert_product_out(out, rows, matrices, ends, order.narrow(0, 0, 9)), Error);
  EXPECT_THROW(cuda::expert_product_out(out, rows, matrices, ends.to(at::kLong)), Error);
  EXPECT_THROW(cuda::expert_product_out(out, rows, matrices.transpose(1, 2), ends), Error);
  EXPECT_THROW(cuda::expert_swiglu_out(out, rows, matrices, ends), Error);
  const at::Tensor odd = at::empty({2, 64, 31}, bf16);
  EXPECT_FALSE(cuda::has_expert_product(rows.narrow(1, 0, 31).contiguous(), odd));
  EXPECT_FALSE(cuda::has_expert_product(rows.to(at::kFloat), matrices.to(at::kFloat)));
  EXPECT_FALSE(cuda::has_expert_product(rows.cpu(), matrices.cpu()));
}

}  // namespace
}  // namespace farskip::testing
