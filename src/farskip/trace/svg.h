#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "farskip/trace/intervals.h"
#include "farskip/trace/timeline.h"

namespace farskip {

// Layers first..last, both included, from 1.
struct LayerRange {
  int first = 1, last = 1;
};

struct SvgOptions {
  std::string title;
  int width = 1000;  // pixels; at least 480
  // Shows only this part of every step; seconds from the step's start.
  std::optional<Interval> window;
  // Shows only these layers: each timeline from the start of the first layer's computation to the
  // start of what follows the last one's (in steady state, exactly that many periods), all shifted
  // to one left edge. Not together with `window`.
  std::optional<LayerRange> layers;
};

// A picture of the timelines, in the given order from top to bottom, on one time axis. Of each: a
// lane of computation and one of communication, the layers as shades and labelled strips, the
// exposed gaps hatched in red, and at the right the step time, the share of communication that is
// overlapped and what is exposed, always of the whole step. Tooltips name every op. The file
// stands alone: no scripts, no fonts, no references.
// Throws UsageError for options that contradict each other or show nothing, Error for impossible
// times in a timeline.
std::string svg_picture(std::span<const Timeline> timelines, const SvgOptions& options);

// Writes svg_picture whole or not at all. Throws as it does, and FileError.
void write_svg(const std::filesystem::path& path, std::span<const Timeline> timelines,
               const SvgOptions& options);

}  // namespace farskip
