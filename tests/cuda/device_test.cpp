#include "farskip/cuda/device.h"

#include "gpu_test.h"

namespace farskip::testing {
namespace {

// Runs without a GPU too: asking must not throw.
TEST(CudaDevice, AnswersWithoutThrowing) {
  EXPECT_EQ(cuda_version().rfind("CUDA ", 0), 0u) << cuda_version();
  EXPECT_EQ(cuda_is_available(),
            cuda_version().back() == ')' && cuda_version().find("sm_") != std::string::npos);
}

}  // namespace
}  // namespace farskip::testing
