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
constexpr const char* rank_name = "RANK";
constexpr const char* size_name = "WORLD_SIZE";
constexpr const char* local_rank_name = "LOCAL_RANK";
constexpr const char* address_name = "MASTER_ADDR";
constexpr const char* master_port_name = "MASTER_PORT";
constexpr const char* port_name = "FARSKIP_PORT";
constexpr const char* bind_name = "FARSKIP_BIND";
constexpr std::array names = {threads_name, deadline_name,    rank_name, size_name, local_rank_name,
                              address_name, master_port_name, port_name, bind_name};

constexpr double longest_deadline_seconds = 1e6;
constexpr int most_ranks = 4096;

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

std::optional<std::chrono::duration<double>> Environment::deadline() const {
  const auto text = find(deadline_name);
  if (!text) return std::nullopt;
  return std::chrono::duration<double>(parse_number<double>(
      *text, deadline_name, 0.001, longest_deadline_seconds, "seconds from 0.001 to 1000000"));
}

bool Environment::is_launched() const { return find(rank_name) || find(size_name); }

LaunchPlace Environment::launch_place() const {
  const auto number = [&](const char* name, int low, int high) {
    const std::string range = "an integer from " + std::to_string(low) + " to ";
    const auto text = find(name);
    if (!text) {
      throw UsageError("an environment variable is missing",
                       {.where = name,
                        .expected = range + std::to_string(high),
                        .found = "nothing",
                        .hint = "start every rank with torchrun, or set RANK, WORLD_SIZE, "
                                "LOCAL_RANK, MASTER_ADDR and MASTER_PORT for each"});
    }
    return parse_number<int>(*text, name, low, high, range + std::to_string(high));
  };
  LaunchPlace place;
  place.size = number(size_name, 1, most_ranks);
  place.rank = number(rank_name, 0, place.size - 1);
  place.local_rank = number(local_rank_name, 0, place.size - 1);
  place.address = find(address_name).value_or(place.address);
  place.bind_address = find(bind_name).value_or("");
  const char* const port = find(port_name) ? port_name : master_port_name;
  if (place.size > 1 || find(port)) place.port = number(port, 1, 65535);
  return place;
}

}  // namespace farskip
