#include "farskip/base/environment.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "farskip/base/error.h"

namespace farskip {
namespace {

constexpr const char* threads_name = "FARSKIP_THREADS";
constexpr const char* deadline_name = "FARSKIP_DEADLINE_S";
constexpr const char* log_name = "FARSKIP_LOG";
constexpr std::array names = {threads_name, deadline_name, log_name};

constexpr double default_deadline_seconds = 60;
constexpr double longest_deadline_seconds = 1e6;

template <typename T>
T parse_number(const std::string& text, const char* name, T low, T high,
               const std::string& expected) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  // Negated, so that NaN is refused too.
  if (error != std::errc{} || stop != end || !(value >= low && value <= high)) {
    throw UsageError("wrong value of an environment variable",
                     {.where = name, .expected = expected, .found = "'" + text + "'"});
  }
  return value;
}

}  // namespace

Environment Environment::from_process() {
  Values values;
  for (const char* name : names) {
    if (const char* value = std::getenv(name)) values.emplace(name, value);
  }
  return Environment(std::move(values));
}

std::optional<std::string> Environment::find(const std::string& name) const {
  const auto found = values_.find(name);
  if (found == values_.end() || found->second.empty()) return std::nullopt;
  return found->second;
}

std::optional<int> Environment::threads() const {
  const auto text = find(threads_name);
  if (!text) return std::nullopt;
  return parse_number<int>(*text, threads_name, 1, 1024, "an integer from 1 to 1024");
}

std::chrono::duration<double> Environment::deadline() const {
  const auto text = find(deadline_name);
  if (!text) return std::chrono::duration<double>(default_deadline_seconds);
  return std::chrono::duration<double>(parse_number<double>(
      *text, deadline_name, 0.001, longest_deadline_seconds, "seconds from 0.001 to 1000000"));
}

LogLevel Environment::log_level() const {
  const auto text = find(log_name);
  return text ? parse_log_level(*text, log_name) : LogLevel::warning;
}

}  // namespace farskip
