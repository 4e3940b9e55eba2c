#include <gtest/gtest.h>

#include "farskip/nn/determinism.h"

// Of tests that multiply matrices.
int main(int argc, char** argv) {
  farskip::use_row_independent_products();
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
