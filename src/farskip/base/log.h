#pragma once

#include <cstdio>
#include <mutex>
#include <string>
#include <string_view>

namespace farskip {

enum class LogLevel { debug, info, warning, error, off };

// "debug", "info", "warning", "error" or "off"; throws UsageError naming `where` for anything else.
LogLevel parse_log_level(std::string_view name, const std::string& where);

// Writes lines "farskip: warning: text" to a stream, those of its level and above. Passed to
// whoever logs; there is no global one. Thread-safe: lines never mix.
class Logger {
 public:
  // The stream is not owned and must outlive the logger.
  explicit Logger(LogLevel level, std::FILE* stream = stderr) : level_(level), stream_(stream) {}
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;

  bool enabled(LogLevel level) const { return level >= level_ && level != LogLevel::off; }
  void log(LogLevel level, std::string_view text);

  void debug(std::string_view text) { log(LogLevel::debug, text); }
  void info(std::string_view text) { log(LogLevel::info, text); }
  void warning(std::string_view text) { log(LogLevel::warning, text); }
  void error(std::string_view text) { log(LogLevel::error, text); }

 private:
  const LogLevel level_;
  std::FILE* const stream_;
  std::mutex mutex_;
};

}  // namespace farskip
