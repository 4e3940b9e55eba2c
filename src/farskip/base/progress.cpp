#include "farskip/base/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "farskip/base/format.h"

namespace farskip {
namespace {

constexpr std::chrono::milliseconds redraw_interval{100};

int terminal_width(std::FILE* stream) {
  struct winsize size {};
  const bool known = ::ioctl(::fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

// A line that wraps can not be wiped, so it is cut to the terminal's width.
std::string cut_to_width(std::string text, int width) {
  while (!text.empty() && display_width(text) > width) {
    while ((static_cast<unsigned char>(text.back()) & 0xC0) == 0x80 && text.size() > 1) {
      text.pop_back();
    }
    text.pop_back();
  }
  return text;
}

}  // namespace

Progress::Progress(std::string label, int64_t total, std::FILE* stream,
                   std::chrono::milliseconds delay)
    : Progress(std::move(label), total, stream, delay, ::isatty(::fileno(stream)) == 1) {}

Progress::Progress(std::string label, int64_t total, std::FILE* stream,
                   std::chrono::milliseconds delay, bool is_terminal)
    : label_(std::move(label)),
      total_(total),
      stream_(stream),
      is_terminal_(is_terminal),
      next_draw_(Clock::now() + delay) {}

void Progress::update(int64_t done, std::string_view note) {
  if (!is_terminal_) return;
  const Clock::time_point now = Clock::now();
  if (now < next_draw_) return;
  next_draw_ = now + redraw_interval;
  std::string line = label_ + " " + std::to_string(done);
  if (total_ > 0) {
    const double fraction = static_cast<double>(done) / static_cast<double>(total_);
    line += "/" + std::to_string(total_) + " " + format_percent(std::clamp(fraction, 0.0, 1.0), 0);
  }
  if (!note.empty()) line.append(" ").append(note);
  line = "\r" + cut_to_width(std::move(line), terminal_width(stream_) - 1) + "\x1b[K";
  std::fwrite(line.data(), 1, line.size(), stream_);
  std::fflush(stream_);
  drawn_ = true;
}

void Progress::clear() {
  if (!drawn_) return;
  drawn_ = false;
  std::fputs("\r\x1b[K", stream_);
  std::fflush(stream_);
}

}  // namespace farskip
