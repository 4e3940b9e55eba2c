#include "farskip/train/rank_meeting.h"

#include <exception>
#include <nlohmann/json.hpp>

#include "farskip/base/error.h"

namespace farskip {
namespace {

constexpr const char* error_key = "error";
constexpr const char* result_key = "result";

std::string message_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& known) {
    return known.what();
  } catch (...) {
    return "unknown error";
  }
}

}  // namespace

std::vector<Json> work_and_meet(const RankMeeting& meeting, const std::function<Json()>& work) {
  Json own;
  std::exception_ptr error;
  try {
    own[result_key] = work();
  } catch (...) {
    error = std::current_exception();
    own[error_key] = message_of(error);
  }
  const std::vector<std::string> texts =
      meeting.gather(own.dump(-1, ' ', false, Json::error_handler_t::replace));
  if (error) std::rethrow_exception(error);
  std::vector<Json> results;
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    Json of_rank = parse_json(texts[rank], "rank " + std::to_string(rank));
    if (of_rank.contains(error_key)) {
      throw FileError("another rank failed", {.where = "rank " + std::to_string(rank),
                                              .found = of_rank.at(error_key).get<std::string>()});
    }
    results.push_back(std::move(of_rank.at(result_key)));
  }
  return results;
}

}  // namespace farskip
