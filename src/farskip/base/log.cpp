#include "farskip/base/log.h"

#include <array>

#include "farskip/base/error.h"

namespace farskip {
namespace {

constexpr std::array<std::string_view, 5> level_names = {"debug", "info", "warning", "error",
                                                         "off"};

}  // namespace

LogLevel parse_log_level(std::string_view name, const std::string& where) {
  for (size_t index = 0; index < level_names.size(); ++index) {
    if (level_names[index] == name) return static_cast<LogLevel>(index);
  }
  throw UsageError("unknown log level", {.where = where,
                                         .expected = "debug, info, warning, error or off",
                                         .found = std::string(name)});
}

void Logger::log(LogLevel level, std::string_view text) {
  if (!enabled(level)) return;
  std::string line = "farskip: ";
  line += level_names[static_cast<size_t>(level)];
  line += ": ";
  line += text;
  line += '\n';
  const std::lock_guard lock(mutex_);
  std::fwrite(line.data(), 1, line.size(), stream_);
  std::fflush(stream_);
}

}  // namespace farskip
