#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>

#include "farskip/base/log.h"

namespace farskip {

// The environment variables that farskip reads; nothing else in the library reads any. A snapshot:
// immutable, any thread. Getters throw UsageError naming the variable when its value makes no
// sense.
class Environment {
 public:
  using Values = std::map<std::string, std::string>;

  // Takes the values from this process's environment; call before threads change it.
  static Environment from_process();
  // Takes them from a map, for tests.
  explicit Environment(Values values) : values_(std::move(values)) {}

  // FARSKIP_THREADS: compute threads a rank, at least 1; nothing when unset.
  std::optional<int> threads() const;
  // FARSKIP_DEADLINE_S: how long any wait may last before it fails, in seconds; 60 when unset.
  std::chrono::duration<double> deadline() const;
  // FARSKIP_LOG: debug, info, warning, error or off; warning when unset.
  LogLevel log_level() const;

 private:
  std::optional<std::string> find(const std::string& name) const;

  Values values_;  // set and not empty
};

}  // namespace farskip
