#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>

namespace farskip {

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return value_; }
  // False when the system reports a write error that it had kept until now.
  bool close() {
    const int value = std::exchange(value_, -1);
    return value < 0 || ::close(value) == 0;
  }

 private:
  int value_;
};

// Throws FileError about `path` with what the system says of `error`, an errno.
[[noreturn]] void fail_on_path(const std::filesystem::path& path, const std::string& summary,
                               int error, std::string hint = {});

// Opens an existing regular file for reading and gives its size. Throws FileError.
int open_regular(const std::filesystem::path& path, uint64_t& size);

// Makes what was created, renamed and removed in a folder survive a power cut. Some file systems
// can not sync a folder; its files are whole either way, so a failure here is none.
void sync_folder(const std::filesystem::path& folder);

}  // namespace farskip
