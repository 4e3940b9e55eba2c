#include "farskip/nn/determinism.h"

#include <ATen/Context.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/tanh.h>

#include <cstdlib>

namespace farskip {

void prepare_cpu_libraries() {
  ::setenv("MKL_CBWR", "AUTO,STRICT", /*overwrite=*/0);
  // Long enough for the vector functions and for the product's kernels.
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const at::Tensor x = at::ones({16, 64}, dtype);
    at::mm(x, x.t());
    at::exp(x);
    at::log(x);
    at::sin(x);
    at::cos(x);
    at::sqrt(x);
    at::tanh(x);
  }
}

void use_deterministic_kernels(bool deterministic) {
  // cuBLAS promises the same bits on several streams only with workspaces of a fixed size.
  if (deterministic) ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  at::globalContext().setDeterministicAlgorithms(deterministic, /*warn_only=*/false);
  // Nothing reads what it has not written, so that filling memory would only take time.
  at::globalContext().setDeterministicFillUninitializedMemory(!deterministic);
}

}  // namespace farskip
