#include "farskip/comm/exchange.h"

#include "farskip/base/format.h"

namespace farskip {
namespace {

std::string seconds_text(Clock::duration duration) {
  return format_fixed(std::chrono::duration<double>(duration).count(), 2) + " s";
}

std::string join_numbers(std::span<const int> numbers) {
  std::string text;
  for (const int number : numbers) text += (text.empty() ? "" : ", ") + std::to_string(number);
  return text;
}

}  // namespace

Clock::duration checked_deadline(std::chrono::duration<double> deadline) {
  const double seconds = deadline.count();
  if (!(seconds > 0) || seconds >= 1e8) {
    throw UsageError("wrong deadline", {.expected = "a positive number of seconds below 1e8",
                                        .found = std::to_string(seconds)});
  }
  return std::chrono::ceil<Clock::duration>(deadline);
}

CommError deadline_error(const Collective& part, const std::string& who, Clock::duration deadline,
                         Clock::duration elapsed) {
  return CommError("the deadline passed",
                   {.where = part.name(),
                    .expected = "completion within " + seconds_text(deadline),
                    .found = who + " after " + seconds_text(elapsed),
                    .hint = "a rank stopped, is slower than the deadline, or posted fewer "
                            "collectives"});
}

std::optional<Clock::time_point> Exchange::pass_message(const Collective& part, Clock::time_point) {
  throw no_messages(part, describe());
}

UnsupportedError no_messages(const Collective& part, const std::string& backend) {
  return UnsupportedError("this backend has no messages between two ranks",
                          {.where = part.name(), .found = backend});
}

std::string not_sent(int rank) { return "rank " + std::to_string(rank) + " has sent nothing"; }

std::string not_entered(std::span<const int> ranks) {
  if (ranks.empty()) return "all ranks entered but not all done";
  return "rank " + join_numbers(ranks) + " not entered";
}

}  // namespace farskip
