#pragma once

#include <gtest/gtest.h>

#include "farskip/cuda/device.h"

namespace farskip::testing {

// A test that needs a GPU: skipped where there is none, as on the machines of `make test`; `make
// test-gpu` runs it on one that has it.
class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_is_available()) return;
    GTEST_SKIP() << "Skipped: no GPU (" << cuda_version()
                 << "); make test-gpu runs it where there is one";
  }
};

}  // namespace farskip::testing
