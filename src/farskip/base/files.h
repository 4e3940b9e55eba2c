#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace farskip {

inline constexpr uint64_t default_file_cap = uint64_t{256} << 20;  // bytes

// The whole content of a regular file. Throws FileError when it is missing, unreadable, not a
// regular file, or larger than max_bytes. Any thread.
std::string read_file(const std::filesystem::path& path, uint64_t max_bytes = default_file_cap);

// What a writer of write_file_atomically writes to: append-only, unbuffered, one thread. Every call
// throws FileError when the bytes can not be stored (disk full, quota, I/O error).
class OutputFile {
 public:
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  uint64_t size() const { return size_; }  // bytes written so far

 private:
  friend void write_file_atomically(const std::filesystem::path&,
                                    const std::function<void(OutputFile&)>&);
  OutputFile(int descriptor, const std::filesystem::path& name)
      : descriptor_(descriptor), name_(name) {}

  int descriptor_;  // not owned
  const std::filesystem::path& name_;
  uint64_t size_ = 0;
};

// Writes a file whole or not at all: a temporary file beside it, flushed to the disk, then renamed
// over `path`. When writer or a system call throws, `path` is as before and nothing is left beside
// it. A symbolic link is followed; anything else that is no regular file (a folder, a device) is
// refused. Throws FileError, and whatever writer throws.
void write_file_atomically(const std::filesystem::path& path,
                           const std::function<void(OutputFile&)>& writer);
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

// A file mapped read-only; bytes() is valid as long as the object lives, and from any thread. Pages
// are read when they are first touched. If another process truncates the file meanwhile, a touch
// beyond its new end raises SIGBUS: replace files by rename, as write_file_atomically does.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);  // FileError
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  size_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;  // null when the file is empty
  size_t size_ = 0;
};

}  // namespace farskip
