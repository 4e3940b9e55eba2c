#pragma once

#include <sys/fsuid.h>
#include <unistd.h>

#include <filesystem>

namespace farskip {

// As long as it lives, this thread can not write into a folder, not even as root, who may write
// anywhere: files are reached as another user.
class ReadOnlyFolder {
 public:
  explicit ReadOnlyFolder(const std::filesystem::path& folder)
      : folder_(folder), before_(std::filesystem::status(folder).permissions()) {
    using std::filesystem::perms;
    constexpr perms written = perms::owner_write | perms::group_write | perms::others_write;
    std::filesystem::permissions(folder_, perms::all & ~written);
    if (::geteuid() == 0) ::setfsuid(nobody);
  }
  ~ReadOnlyFolder() {
    ::setfsuid(::geteuid());
    std::error_code ignored;
    std::filesystem::permissions(folder_, before_, ignored);
  }
  ReadOnlyFolder(const ReadOnlyFolder&) = delete;
  ReadOnlyFolder& operator=(const ReadOnlyFolder&) = delete;

 private:
  static constexpr uid_t nobody = 65534;

  std::filesystem::path folder_;
  std::filesystem::perms before_;
};

}  // namespace farskip
