#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace farskip {

// Text as XML character data: markup escaped, control characters and what is not UTF-8 replaced.
std::string xml_text(std::string_view text);

// "1.23 s", "4.56 ms", "789 us": three significant digits.
std::string short_time(double seconds);

// Round numbers (1, 2 or 5 times a power of ten) from 0 to `end`, about `count` of them.
struct Ticks {
  double step = 1;
  double unit = 1;  // seconds of one unit of the labels
  const char* unit_name = "s";
  std::vector<double> at;  // seconds
};
Ticks ticks_up_to(double end, int count);

// The label of one tick, without its unit.
std::string tick_label(const Ticks& ticks, double seconds);

// Pixels that `text` takes at a font size in pixels; an estimate for sans-serif faces.
double text_width(std::string_view text, double font_size);

// Collects the elements of an SVG. Coordinates are pixels; colours are SVG colours.
class SvgWriter {
 public:
  struct TextStyle {
    double size = 11;
    const char* fill = "#1f2430";
    const char* anchor = "start";  // start, middle, end
    bool bold = false;
  };
  void rect(double x, double y, double width, double height, std::string_view fill,
            std::string_view tooltip = {}, double radius = 0);
  void line(double x1, double y1, double x2, double y2, std::string_view stroke, double width = 1,
            std::string_view dashes = {});
  // `aside` follows the text in small grey letters, wherever the viewer's font makes it end.
  void text(double x, double y, std::string_view text, const TextStyle& style,
            std::string_view aside = {});
  // Puts the other's elements on top of this one's.
  void append(const SvgWriter& other) { body_ += other.body_; }
  // The whole document; `label` describes the picture to those who can not see it.
  std::string document(double width, double height, std::string_view label) const;

 private:
  std::string body_;
};

}  // namespace farskip
