#include "farskip/cuda/copy.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <string>
#include <utility>

#include "farskip/base/error.h"
#include "farskip/cuda/check.h"
#include "farskip/cuda/copy_kernels.h"

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

void copy_rows_beside_compute(const at::Tensor& to, const at::Tensor& from,
                              std::span<const RowCopy> copies) {
  require_one_device("copy_rows_beside_compute", {to, from});
  const int64_t row = checked_row_bytes(to, from, copies);
  auto* const target = static_cast<char*>(to.mutable_data_ptr());
  const auto* const source = static_cast<const char*>(from.const_data_ptr());
  const c10::cuda::CUDAGuard guard(to.device());
  CopyBatch batch;
  for (const RowCopy& copy : copies) {
    if (copy.rows == 0) continue;
    batch.copies[batch.count++] = {
        .to = target + copy.to * row, .from = source + copy.from * row, .bytes = copy.rows * row};
    if (batch.count == max_copies) {
      launch_copies(batch, stream_of(to));
      batch.count = 0;
    }
  }
  if (batch.count > 0) launch_copies(batch, stream_of(to));
}

void connect_devices(at::Device a, at::Device b) {
  for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)}) {
    int reachable = 0;
    check_call(cudaDeviceCanAccessPeer(&reachable, from.index(), to.index()),
               "cudaDeviceCanAccessPeer");
    if (!reachable) {
      throw UnsupportedError(
          "GPUs can not reach each other's memory",
          {.expected = "NVLink or a common bus", .found = from.str() + " and " + to.str()});
    }
    const c10::cuda::CUDAGuard guard(from);
    const cudaError_t status = cudaDeviceEnablePeerAccess(to.index(), 0);
    if (status == cudaErrorPeerAccessAlreadyEnabled) {
      cudaGetLastError();  // a later launch must not find it
    } else {
      check_call(status, "cudaDeviceEnablePeerAccess");
    }
  }
}

void copy_rows_between_devices(const at::Tensor& to, const at::Tensor& from,
                               std::span<const RowCopy> copies, at::Device device) {
  const int64_t row = checked_row_bytes(to, from, copies);
  auto* const target = static_cast<char*>(to.mutable_data_ptr());
  const auto* const source = static_cast<const char*>(from.const_data_ptr());
  const c10::cuda::CUDAGuard guard(device);
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream(device.index()).stream();
  for (const RowCopy& copy : copies) {
    if (copy.rows == 0) continue;
    check_call(
        cudaMemcpyPeerAsync(target + copy.to * row, to.device().index(), source + copy.from * row,
                            from.device().index(), static_cast<size_t>(copy.rows * row), stream),
        "cudaMemcpyPeerAsync");
  }
}

}  // namespace farskip::cuda
