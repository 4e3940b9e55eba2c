#pragma once

#include <signal.h>
#include <sys/resource.h>

#include <cstdint>

namespace farskip {

// As long as it lives, no file of this process grows beyond `bytes`, as on a disk that is full:
// write fails with EFBIG. Files that are longer already, such as a log, can not grow either.
class FullDisk {
 public:
  explicit FullDisk(uint64_t bytes) : handler_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, handler_);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_{};
  sighandler_t handler_;
};

}  // namespace farskip
