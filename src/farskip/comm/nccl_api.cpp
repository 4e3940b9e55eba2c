#include "farskip/comm/nccl_api.h"

#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstring>

#include "farskip/base/error.h"

namespace farskip {
namespace {

static_assert(NCCL_VERSION_CODE >= NCCL_VERSION(2, 18, 0), "NCCL 2.18 or newer is needed");
static_assert(static_cast<int>(NcclResult::in_progress) == ncclInProgress);
static_assert(static_cast<int>(NcclResult::remote_error) == ncclRemoteError);
static_assert(static_cast<int>(NcclType::uint8) == ncclUint8);
static_assert(static_cast<int>(NcclType::int64) == ncclInt64);
static_assert(static_cast<int>(NcclType::float64) == ncclFloat64);
static_assert(static_cast<int>(NcclType::bfloat16) == ncclBfloat16);
static_assert(sizeof(NcclUniqueId) == sizeof(ncclUniqueId));

NcclResult result(ncclResult_t value) { return static_cast<NcclResult>(value); }
ncclDataType_t native(NcclType type) { return static_cast<ncclDataType_t>(type); }
ncclComm_t native(NcclHandle comm) { return reinterpret_cast<ncclComm_t>(comm); }
cudaStream_t native(const c10::Stream& stream) {
  return c10::cuda::CUDAStream(c10::cuda::CUDAStream::UNCHECKED, stream).stream();
}

class RealNccl final : public NcclApi {
 public:
  NcclResult get_version(int* version) override { return result(ncclGetVersion(version)); }

  NcclResult get_unique_id(NcclUniqueId* id) override {
    ncclUniqueId value;
    const ncclResult_t status = ncclGetUniqueId(&value);
    std::memcpy(id->data(), value.internal, id->size());
    return result(status);
  }

  NcclResult comm_init_rank(NcclHandle* comm, int size, const NcclUniqueId& id, int rank,
                            at::Device device) override {
    const c10::DeviceGuard guard(device);
    ncclUniqueId value;
    std::memcpy(value.internal, id.data(), id.size());
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    return result(
        ncclCommInitRankConfig(reinterpret_cast<ncclComm_t*>(comm), size, value, rank, &config));
  }

  NcclResult comm_get_async_error(NcclHandle comm, NcclResult* error) override {
    ncclResult_t value = ncclSuccess;
    const ncclResult_t status = ncclCommGetAsyncError(native(comm), &value);
    *error = result(value);
    return result(status);
  }
  NcclResult comm_finalize(NcclHandle comm) override {
    return result(ncclCommFinalize(native(comm)));
  }
  NcclResult comm_destroy(NcclHandle comm) override {
    return result(ncclCommDestroy(native(comm)));
  }
  NcclResult comm_abort(NcclHandle comm) override { return result(ncclCommAbort(native(comm))); }

  NcclResult group_start() override { return result(ncclGroupStart()); }
  NcclResult group_end() override { return result(ncclGroupEnd()); }

  NcclResult send(const void* in, size_t count, NcclType type, int peer, NcclHandle comm,
                  const c10::Stream& stream) override {
    return result(ncclSend(in, count, native(type), peer, native(comm), native(stream)));
  }
  NcclResult recv(void* out, size_t count, NcclType type, int peer, NcclHandle comm,
                  const c10::Stream& stream) override {
    return result(ncclRecv(out, count, native(type), peer, native(comm), native(stream)));
  }
  NcclResult all_gather(const void* in, void* out, size_t count, NcclType type, NcclHandle comm,
                        const c10::Stream& stream) override {
    return result(ncclAllGather(in, out, count, native(type), native(comm), native(stream)));
  }
  NcclResult reduce_scatter(const void* in, void* out, size_t count, NcclType type, NcclHandle comm,
                            const c10::Stream& stream) override {
    return result(
        ncclReduceScatter(in, out, count, native(type), ncclSum, native(comm), native(stream)));
  }
  NcclResult all_reduce(const void* in, void* out, size_t count, NcclType type, NcclHandle comm,
                        const c10::Stream& stream) override {
    return result(
        ncclAllReduce(in, out, count, native(type), ncclSum, native(comm), native(stream)));
  }
  NcclResult broadcast(const void* in, void* out, size_t count, NcclType type, int root,
                       NcclHandle comm, const c10::Stream& stream) override {
    return result(ncclBroadcast(in, out, count, native(type), root, native(comm), native(stream)));
  }

  std::string get_error_string(NcclResult value) override {
    return ncclGetErrorString(static_cast<ncclResult_t>(value));
  }
  std::string get_last_error(NcclHandle comm) override {
    const char* const text = ncclGetLastError(native(comm));
    return text ? text : "";
  }
  void enter_polling_thread() override {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    // Without it a query on this thread would end another thread's recording with an error.
    (void)cudaThreadExchangeStreamCaptureMode(&mode);
  }
};

}  // namespace

bool nccl_is_available() { return true; }

std::string nccl_version() {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess) throw CommError("NCCL does not tell its version");
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

std::shared_ptr<NcclApi> load_nccl() { return std::make_shared<RealNccl>(); }

}  // namespace farskip
