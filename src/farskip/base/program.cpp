#include "farskip/base/program.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>

#include "farskip/base/descriptor.h"
#include "farskip/base/error.h"

namespace farskip {
namespace {

// A file without a name. The program's streams are files, so that none can fill up and stall it.
class Stream {
 public:
  explicit Stream(std::string_view content = {}) : file_(std::tmpfile(), std::fclose) {
    require(file_ != nullptr);
    const size_t size = content.size();
    require(size == 0 || std::fwrite(content.data(), 1, size, file_.get()) == size);
    require(std::fflush(file_.get()) == 0);
    std::rewind(file_.get());
  }

  int descriptor() const { return ::fileno(file_.get()); }

  std::string content() {
    std::rewind(file_.get());
    std::string text;
    std::array<char, 65536> buffer;
    for (size_t count; (count = std::fread(buffer.data(), 1, buffer.size(), file_.get())) > 0;) {
      text.append(buffer.data(), count);
    }
    require(std::ferror(file_.get()) == 0);
    return text;
  }

 private:
  static void require(bool done) {
    if (!done) fail_on_path("a temporary file", "can not be written or read", errno);
  }

  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};

// The program starts with these streams as its own.
class Redirection {
 public:
  Redirection(const Stream& in, const Stream& out, const Stream& errors) {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawn_file_actions_adddup2(&actions_, in.descriptor(), STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions_, out.descriptor(), STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions_, errors.descriptor(), STDERR_FILENO);
  }
  ~Redirection() { ::posix_spawn_file_actions_destroy(&actions_); }
  Redirection(const Redirection&) = delete;
  Redirection& operator=(const Redirection&) = delete;

  const posix_spawn_file_actions_t* actions() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_;
};

pid_t start(const std::vector<std::string>& words, const Redirection& streams,
            const std::string& hint) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t process = 0;
  const int error =
      ::posix_spawnp(&process, arguments[0], streams.actions(), nullptr, arguments.data(), environ);
  if (error == ENOENT) {
    throw UnsupportedError("this program is not installed", {.where = words[0], .hint = hint});
  }
  if (error != 0) fail_on_path(words[0], "can not be run", error, hint);
  return process;
}

int wait_for(pid_t process) {
  int status = 0;
  while (::waitpid(process, &status, 0) < 0) {
    if (errno != EINTR) fail_on_path("a program", "can not be waited for", errno);
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

ProgramResult run_program(const std::vector<std::string>& words, std::string_view input,
                          const std::string& hint) {
  Stream in(input), out, errors;
  const int status = wait_for(start(words, Redirection(in, out, errors), hint));
  return {status, out.content(), errors.content()};
}

}  // namespace farskip
