#include <gtest/gtest.h>

#include "farskip/nn/determinism.h"

// Of tests that multiply matrices.
int main(int argc, char** argv) {
  farskip::prepare_cpu_libraries();
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
