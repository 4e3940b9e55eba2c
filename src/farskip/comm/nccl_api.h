#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <array>
#include <cstddef>
#include <memory>
#include <string>

namespace farskip {

// NCCL's own numbers; nccl_api.cpp checks them.
enum class NcclResult : int {
  success = 0,
  unhandled_cuda_error,
  system_error,
  internal_error,
  invalid_argument,
  invalid_usage,
  remote_error,
  in_progress,
};
enum class NcclType : int {
  int8 = 0,
  uint8,
  int32,
  uint32,
  int64,
  uint64,
  float16,
  float32,
  float64,
  bfloat16,
};
using NcclUniqueId = std::array<char, 128>;
using NcclHandle = struct NcclHandleTarget*;  // an ncclComm_t

// The part of NCCL's C interface that farskip uses, call by call, so that tests can stand in for
// it. Communicators are non-blocking: every call that takes one may return in_progress, which
// get_async_error turns into success or an error later. Sums only. Counts are elements; buffers lie
// on the communicator's device. Nothing here throws.
// Thread rule: calls on one communicator from one thread at a time.
class NcclApi {
 public:
  virtual ~NcclApi() = default;
  virtual NcclResult get_version(int* version) = 0;
  virtual NcclResult get_unique_id(NcclUniqueId* id) = 0;
  virtual NcclResult comm_init_rank(NcclHandle* comm, int size, const NcclUniqueId& id, int rank,
                                    at::Device device) = 0;
  virtual NcclResult comm_get_async_error(NcclHandle comm, NcclResult* error) = 0;
  virtual NcclResult comm_finalize(NcclHandle comm) = 0;
  virtual NcclResult comm_destroy(NcclHandle comm) = 0;
  virtual NcclResult comm_abort(NcclHandle comm) = 0;
  virtual NcclResult group_start() = 0;
  virtual NcclResult group_end() = 0;
  virtual NcclResult send(const void* in, size_t count, NcclType type, int peer, NcclHandle comm,
                          const c10::Stream& stream) = 0;
  virtual NcclResult recv(void* out, size_t count, NcclType type, int peer, NcclHandle comm,
                          const c10::Stream& stream) = 0;
  virtual NcclResult all_gather(const void* in, void* out, size_t count, NcclType type,
                                NcclHandle comm, const c10::Stream& stream) = 0;
  virtual NcclResult reduce_scatter(const void* in, void* out, size_t count, NcclType type,
                                    NcclHandle comm, const c10::Stream& stream) = 0;
  virtual NcclResult all_reduce(const void* in, void* out, size_t count, NcclType type,
                                NcclHandle comm, const c10::Stream& stream) = 0;
  virtual NcclResult broadcast(const void* in, void* out, size_t count, NcclType type, int root,
                               NcclHandle comm, const c10::Stream& stream) = 0;
  virtual std::string get_error_string(NcclResult result) = 0;
  virtual std::string get_last_error(NcclHandle comm) = 0;
  // Called first thing on a thread that will query events while other threads may be recording a
  // graph of the device's work.
  virtual void enter_polling_thread() = 0;
};

// Whether this build has NCCL. Any thread.
bool nccl_is_available();
// "2.28.9"; throws UnsupportedError without NCCL.
std::string nccl_version();
// NCCL itself; throws UnsupportedError without it.
std::shared_ptr<NcclApi> load_nccl();

}  // namespace farskip
