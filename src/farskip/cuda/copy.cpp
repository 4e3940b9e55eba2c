#include "farskip/cuda/copy.h"

#include <c10/cuda/CUDAGuard.h>

#include <string>

#include "farskip/base/error.h"
#include "farskip/cuda/check.h"
#include "farskip/cuda/copy_batches.h"

namespace farskip::cuda {
namespace {

// Bytes of a row of both. Throws Error if tensors or copies do not fit.
int64_t checked_row_bytes(const at::Tensor& to, const at::Tensor& from,
                          std::span<const RowCopy> copies) {
  require_contiguous(to, "copy target");
  require_contiguous(from, "copy source");
  const auto row_bytes = [](const at::Tensor& tensor) {
    const int64_t rows = tensor.dim() > 0 ? tensor.size(0) : 0;
    return rows > 0 ? static_cast<int64_t>(tensor.nbytes()) / rows : 0;
  };
  for (const RowCopy& copy : copies) {
    const bool inside = copy.rows >= 0 && copy.to >= 0 && copy.from >= 0 &&
                        copy.to + copy.rows <= to.size(0) && copy.from + copy.rows <= from.size(0);
    if (inside && (copy.rows == 0 || row_bytes(to) == row_bytes(from))) continue;
    throw Error("rows do not fit a copy",
                {.where = "copy of " + std::to_string(copy.rows) + " rows",
                 .expected = std::to_string(from.size(0)) + " rows of " +
                             std::to_string(row_bytes(from)) + " bytes",
                 .found = std::to_string(to.size(0)) + " rows of " + std::to_string(row_bytes(to)) +
                          " bytes"});
  }
  return row_bytes(to);
}

}  // namespace

std::vector<CopyBatch> copy_batches(const at::Tensor& to, const at::Tensor& from,
                                    std::span<const RowCopy> copies) {
  if (copies.empty()) return {};
  const int64_t row = checked_row_bytes(to, from, copies);
  auto* const target = static_cast<char*>(to.mutable_data_ptr());
  const auto* const source = static_cast<const char*>(from.const_data_ptr());
  std::vector<CopyBatch> batches;
  for (const RowCopy& copy : copies) {
    if (copy.rows == 0) continue;
    if (batches.empty() || batches.back().count == max_copies) batches.emplace_back();
    CopyBatch& batch = batches.back();
    batch.copies[batch.count++] = {
        .to = target + copy.to * row, .from = source + copy.from * row, .bytes = copy.rows * row};
  }
  return batches;
}

void copy_rows_beside_compute(const at::Tensor& to, const at::Tensor& from,
                              std::span<const RowCopy> copies) {
  require_one_device("copy_rows_beside_compute", {to, from});
  const c10::cuda::CUDAGuard guard(to.device());
  for (const CopyBatch& batch : copy_batches(to, from, copies)) {
    launch_copies(batch, stream_of(to));
  }
}

}  // namespace farskip::cuda
