#pragma once

#include <stdexcept>
#include <string>

namespace farskip {

// What went wrong, in four parts; empty parts are left out of the message.
struct Problem {
  std::string where;     // file, field, op, flag: the place a reader would look at first
  std::string expected;  // what would have been right
  std::string found;     // what was there instead
  std::string hint;      // what to do about it
};

// The root of every exception that farskip throws on purpose. what() reads
// "where: summary (expected X, found Y); hint".
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& summary, Problem problem = {});
  const Problem& problem() const { return problem_; }

 private:
  Problem problem_;
};

// A model configuration, connectivity or placement that is wrong or contradicts itself.
class ConfigError : public Error {
  using Error::Error;
};

// A file that is missing, unreadable, truncated, or not what its name or header says.
class FileError : public Error {
  using Error::Error;
};

// A graph that breaks one of its own invariants, or a rewrite that does not apply to it.
class GraphError : public Error {
  using Error::Error;
};

// A schedule that does not fit its graph.
class ScheduleError : public Error {
  using Error::Error;
};

// A collective that failed, timed out or met a peer that disagrees.
class CommError : public Error {
  using Error::Error;
};

// A number that came out as NaN or infinite where that can only be a mistake.
class NumericError : public Error {
  using Error::Error;
};

// Something valid that this build or version can not do.
class UnsupportedError : public Error {
  using Error::Error;
};

// A command line that asks for something impossible; the CLI exits with 2.
class UsageError : public Error {
  using Error::Error;
};

}  // namespace farskip
