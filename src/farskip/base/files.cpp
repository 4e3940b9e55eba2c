#include "farskip/base/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "farskip/base/descriptor.h"
#include "farskip/base/error.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_too_large(const fs::path& path, uint64_t max_bytes, uint64_t size) {
  throw FileError("file is too large",
                  {.where = path.string(),
                   .expected = "at most " + std::to_string(max_bytes) + " bytes",
                   .found = "at least " + std::to_string(size) + " bytes"});
}

// Where a write to `path` really goes: the file behind a symbolic link, else the path itself.
fs::path resolve_target(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    throw FileError("can not be replaced by a file",
                    {.where = path.string(),
                     .expected = "a regular file or a new name",
                     .found = fs::is_directory(status) ? "a folder" : "a special file"});
  }
  if (!fs::is_symlink(fs::symlink_status(path, error))) return path;
  fs::path target = fs::weakly_canonical(path, error);
  if (error) fail_on_path(path, "can not follow the link", error.value());
  return target;
}

// A name that no other writer of this or another process uses at the same time.
fs::path temporary_beside(const fs::path& target) {
  static std::atomic<uint64_t> counter{0};
  const std::string suffix =
      std::to_string(::getpid()) + "." + std::to_string(counter.fetch_add(1)) + ".tmp";
  return target.parent_path() / ("." + target.filename().string().substr(0, 200) + "." + suffix);
}

// Removes the temporary file unless it was renamed away.
class TemporaryFile {
 public:
  explicit TemporaryFile(fs::path path) : path_(std::move(path)) {}
  ~TemporaryFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const fs::path& path() const { return path_; }
  void keep() { path_.clear(); }

 private:
  fs::path path_;
};

}  // namespace

std::string read_file(const fs::path& path, uint64_t max_bytes) {
  uint64_t size = 0;
  const Descriptor descriptor(open_regular(path, size));
  if (size > max_bytes) fail_too_large(path, max_bytes, size);
  std::string content;
  content.reserve(size);
  // The size is a hint only: files of /proc report zero, and others may grow while they are read.
  std::array<char, 1 << 16> buffer;
  while (true) {
    const ssize_t count = ::read(descriptor.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_on_path(path, "can not read the file", errno);
    if (count == 0) return content;
    if (content.size() + static_cast<size_t>(count) > max_bytes) {
      fail_too_large(path, max_bytes, content.size() + static_cast<size_t>(count));
    }
    content.append(buffer.data(), static_cast<size_t>(count));
  }
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    // Linux writes at most 2 GiB a call.
    const size_t portion = std::min<size_t>(bytes.size(), size_t{1} << 30);
    const ssize_t count = ::write(descriptor_, bytes.data(), portion);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_on_path(name_, "can not write the file", errno);
    size_ += static_cast<uint64_t>(count);
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

void OutputFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text.data(), text.size())));
}

void write_file_atomically(const fs::path& path, const std::function<void(OutputFile&)>& writer) {
  if (path.filename().empty()) {
    throw FileError("names no file", {.where = path.string(), .expected = "a file name"});
  }
  const fs::path target = resolve_target(path);
  fs::path temporary_path = temporary_beside(target);
  Descriptor descriptor(
      ::open(temporary_path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (descriptor.get() < 0) {
    fail_on_path(path, "can not create the file", errno,
                 "check that the folder exists and is writable");
  }
  TemporaryFile temporary(std::move(temporary_path));
  OutputFile output(descriptor.get(), path);
  writer(output);
  if (::fsync(descriptor.get()) != 0) fail_on_path(path, "can not store the file", errno);
  if (!descriptor.close()) fail_on_path(path, "can not store the file", errno);
  if (::rename(temporary.path().c_str(), target.c_str()) != 0) {
    fail_on_path(path, "can not put the file in its place", errno);
  }
  temporary.keep();
  sync_folder(target.parent_path());
}

void write_file_atomically(const fs::path& path, std::string_view content) {
  write_file_atomically(path, [content](OutputFile& file) { file.write(content); });
}

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  uint64_t size = 0;
  const Descriptor descriptor(open_regular(path, size));
  if (size > std::numeric_limits<size_t>::max() / 2) {
    fail_too_large(path, std::numeric_limits<size_t>::max() / 2, size);
  }
  if (size == 0) return;
  void* const data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor.get(), 0);
  if (data == MAP_FAILED) fail_on_path(path, "can not map the file", errno);
  data_ = static_cast<const std::byte*>(data);
  size_ = size;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace farskip
