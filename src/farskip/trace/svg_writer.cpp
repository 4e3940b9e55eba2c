#include "farskip/trace/svg_writer.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "farskip/base/format.h"

namespace farskip {
namespace {

// Bytes of the UTF-8 sequence that `text` starts with, 0 if it is none.
size_t utf8_length(std::string_view text) {
  const auto lead = static_cast<uint8_t>(text[0]);
  const size_t length = lead < 0x80                   ? 1
                        : lead >= 0xc2 && lead < 0xe0 ? 2
                        : lead >= 0xe0 && lead < 0xf0 ? 3
                        : lead >= 0xf0 && lead < 0xf5 ? 4
                                                      : 0;
  if (length == 0 || text.size() < length) return 0;
  uint32_t code = length == 1 ? lead : lead & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    if ((byte & 0xc0u) != 0x80u) return 0;
    code = code << 6 | (byte & 0x3fu);
  }
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  const bool no_character =
      (code >= 0xd800 && code < 0xe000) || code > 0x10ffff || code == 0xfffe || code == 0xffff;
  return overlong || no_character ? 0 : length;
}

std::string number(double value) {
  std::string digits = format_fixed(value, 2);
  while (digits.back() == '0') digits.pop_back();
  if (digits.back() == '.') digits.pop_back();
  return digits == "-0" ? "0" : digits;
}

std::string attribute(std::string_view name, std::string_view value) {
  return " " + std::string(name) + "=\"" + std::string(value) + "\"";
}

}  // namespace

std::string xml_text(std::string_view text) {
  std::string safe;
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    const char c = text[0];
    if (length == 0 || (length == 1 && (static_cast<uint8_t>(c) < 0x20 || c == 0x7f))) {
      safe += c == '\n' || c == '\t' ? " " : "?";
    } else if (c == '&') {
      safe += "&amp;";
    } else if (c == '<') {
      safe += "&lt;";
    } else if (c == '>') {
      safe += "&gt;";
    } else if (c == '"') {
      safe += "&quot;";
    } else {
      safe += text.substr(0, length);
    }
    text.remove_prefix(std::max<size_t>(1, length));
  }
  return safe;
}

std::string short_time(double seconds) {
  const double size = std::abs(seconds);
  const double scale = size >= 0.9995 ? 1 : size >= 0.9995e-3 ? 1e3 : 1e6;
  const char* unit = scale == 1 ? "s" : scale == 1e3 ? "ms" : "us";
  const double value = seconds * scale;
  const int decimals = std::abs(value) < 9.995 ? 2 : std::abs(value) < 99.95 ? 1 : 0;
  return format_fixed(value, value == 0 ? 0 : decimals) + " " + unit;
}

Ticks ticks_up_to(double end, int count) {
  Ticks ticks;
  const double rough = end / std::max(1, count);
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double multiple = rough / power;
  ticks.step = power * (multiple <= 1.0 ? 1 : multiple <= 2.0 ? 2 : multiple <= 5.0 ? 5 : 10);
  ticks.unit = end >= 2 ? 1 : end >= 2e-3 ? 1e-3 : 1e-6;
  ticks.unit_name = ticks.unit == 1 ? "s" : ticks.unit == 1e-3 ? "ms" : "us";
  for (int i = 0; i * ticks.step <= end * (1 + 1e-9); ++i) ticks.at.push_back(i * ticks.step);
  return ticks;
}

std::string tick_label(const Ticks& ticks, double seconds) {
  const double step = ticks.step / ticks.unit;
  const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 9);
  return format_fixed(seconds / ticks.unit, decimals);
}

double text_width(std::string_view text, double font_size) {
  return 0.54 * font_size * static_cast<double>(text.size());
}

void SvgWriter::rect(double x, double y, double width, double height, std::string_view fill,
                     std::string_view tooltip, double radius) {
  body_ += "<rect" + attribute("x", number(x)) + attribute("y", number(y)) +
           attribute("width", number(width)) + attribute("height", number(height)) +
           attribute("fill", fill);
  if (radius > 0) body_ += attribute("rx", number(radius));
  body_ += tooltip.empty() ? "/>\n" : "><title>" + xml_text(tooltip) + "</title></rect>\n";
}

void SvgWriter::line(double x1, double y1, double x2, double y2, std::string_view stroke,
                     double width, std::string_view dashes) {
  body_ += "<line" + attribute("x1", number(x1)) + attribute("y1", number(y1)) +
           attribute("x2", number(x2)) + attribute("y2", number(y2)) + attribute("stroke", stroke) +
           attribute("stroke-width", number(width));
  if (!dashes.empty()) body_ += attribute("stroke-dasharray", dashes);
  body_ += "/>\n";
}

void SvgWriter::text(double x, double y, std::string_view text, const TextStyle& style,
                     std::string_view aside) {
  body_ += "<text" + attribute("x", number(x)) + attribute("y", number(y)) +
           attribute("font-size", number(style.size)) + attribute("fill", style.fill);
  if (std::string_view(style.anchor) != "start") body_ += attribute("text-anchor", style.anchor);
  if (style.bold) body_ += attribute("font-weight", "600");
  body_ += " pointer-events=\"none\">" + xml_text(text);
  if (!aside.empty()) {
    body_ += "<tspan dx=\"9\" font-size=\"11\" font-weight=\"400\" fill=\"#667085\">" +
             xml_text(aside) + "</tspan>";
  }
  body_ += "</text>\n";
}

std::string SvgWriter::document(double width, double height, std::string_view label) const {
  const std::string size = number(width) + " " + number(height);
  return "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + size + "\" width=\"" +
         number(width) + "\" height=\"" + number(height) + "\" role=\"img\" aria-label=\"" +
         xml_text(label) +
         "\" font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, "
         "'DejaVu Sans', sans-serif\">\n"
         "<defs><pattern id=\"exposed\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" "
         "patternTransform=\"rotate(45)\"><rect width=\"5\" height=\"5\" fill=\"#fde3e1\"/>"
         "<line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"5\" stroke=\"#d93025\" stroke-width=\"2.4\"/>"
         "</pattern></defs>\n" +
         body_ + "</svg>\n";
}

}  // namespace farskip
