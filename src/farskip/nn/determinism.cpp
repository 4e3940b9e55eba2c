#include "farskip/nn/determinism.h"

#include <ATen/Context.h>

#include <cstdlib>

namespace farskip {

void use_row_independent_products() { ::setenv("MKL_CBWR", "AUTO,STRICT", /*overwrite=*/0); }

void use_deterministic_kernels(bool deterministic) {
  // cuBLAS promises the same bits on several streams only with workspaces of a fixed size.
  if (deterministic) ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  at::globalContext().setDeterministicAlgorithms(deterministic, /*warn_only=*/false);
}

}  // namespace farskip
