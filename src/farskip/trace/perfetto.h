#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "farskip/trace/timeline.h"

namespace farskip {

// The timelines in the Chrome trace event format, which ui.perfetto.dev and chrome://tracing open:
// a process per timeline ("farskip, overlapped (measured), rank 0"), a thread per lane, an event
// per span with its op, layer, micro-batch, chunk, piece and skew as arguments. Times are
// microseconds. Names that are not UTF-8 are repaired.
std::string perfetto_json(std::span<const Timeline> timelines);

// Writes perfetto_json whole or not at all. Throws FileError.
void write_perfetto(const std::filesystem::path& path, std::span<const Timeline> timelines);

}  // namespace farskip
