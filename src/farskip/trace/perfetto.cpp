#include "farskip/trace/perfetto.h"

#include <nlohmann/json.hpp>

#include "farskip/base/files.h"
#include "farskip/trace/category.h"

namespace farskip {
namespace {

// Keys in the order written, so that the files are readable and diff well.
using Event = nlohmann::ordered_json;

int thread_of(Lane lane) { return lane == Lane::compute ? 1 : 2; }

Event metadata(const char* what, int process, int thread, const Event& arguments) {
  return {{"name", what}, {"ph", "M"}, {"pid", process}, {"tid", thread}, {"args", arguments}};
}

std::string process_name(const Timeline& timeline) {
  const bool measured = timeline.origin == Timeline::Origin::measured;
  return timeline.title + (measured ? " (measured), rank " : " (simulated), rank ") +
         std::to_string(timeline.rank);
}

Event event_of(const Span& span, int process) {
  constexpr double micro = 1e6;
  Event arguments = {{"op", span.op},
                     {"layer", span.layer},
                     {"micro_batch", span.micro_batch},
                     {"chunk", span.chunk},
                     {"piece", span.piece}};
  if (span.lane == Lane::communication) {
    arguments["posted_us"] = span.posted * micro;
    arguments["skew_us"] = (span.start - span.posted) * micro;
  }
  return {{"name", span.name},
          {"cat", to_string(category_of(span))},
          {"ph", "X"},
          {"pid", process},
          {"tid", thread_of(span.lane)},
          {"ts", span.start * micro},
          {"dur", span.seconds() * micro},
          {"args", arguments}};
}

}  // namespace

std::string perfetto_json(std::span<const Timeline> timelines) {
  std::string text = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [";
  const char* separator = "\n";
  const auto add = [&](const Event& event) {
    text += separator;
    text += event.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    separator = ",\n";
  };
  int process = 0;
  for (const Timeline& timeline : timelines) {
    ++process;
    add(metadata("process_name", process, 0, {{"name", process_name(timeline)}}));
    add(metadata("process_sort_index", process, 0, {{"sort_index", process}}));
    for (Lane lane : {Lane::compute, Lane::communication}) {
      add(metadata("thread_name", process, thread_of(lane), {{"name", to_string(lane)}}));
      add(metadata("thread_sort_index", process, thread_of(lane),
                   {{"sort_index", thread_of(lane)}}));
    }
    for (const Span& span : timeline.spans) add(event_of(span, process));
  }
  return text + "\n]}\n";
}

void write_perfetto(const std::filesystem::path& path, std::span<const Timeline> timelines) {
  write_file_atomically(path, perfetto_json(timelines));
}

}  // namespace farskip
