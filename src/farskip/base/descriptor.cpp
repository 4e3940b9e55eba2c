#include "farskip/base/descriptor.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <system_error>

#include "farskip/base/error.h"

namespace farskip {

void fail_on_path(const std::filesystem::path& path, const std::string& summary, int error,
                  std::string hint) {
  throw FileError(summary, {.where = path.string(),
                            .found = std::generic_category().message(error),
                            .hint = std::move(hint)});
}

// O_NONBLOCK: opening a pipe must not wait for a writer before it is refused.
int open_regular(const std::filesystem::path& path, uint64_t& size) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) fail_on_path(path, "can not open the file", errno);
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) {
    const int error = errno;
    ::close(descriptor);
    fail_on_path(path, "can not inspect the file", error);
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(descriptor);
    throw FileError("can not be read",
                    {.where = path.string(),
                     .expected = "a regular file",
                     .found = S_ISDIR(status.st_mode) ? "a folder" : "a special file"});
  }
  size = static_cast<uint64_t>(status.st_size);
  return descriptor;
}

void sync_folder(const std::filesystem::path& folder) {
  const Descriptor descriptor(
      ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (descriptor.get() >= 0) ::fsync(descriptor.get());
}

}  // namespace farskip
