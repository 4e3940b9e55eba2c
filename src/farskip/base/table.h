#pragma once

#include <string>
#include <vector>

namespace farskip {

enum class Align { left, right };

struct Column {
  std::string name;
  std::string unit;  // a second header line, "ms" or "tokens/s"; empty where there is none
  Align align = Align::right;
};

// A text table: columns as wide as their widest cell, two spaces between, a rule under the header,
// no trailing blanks. Cells are UTF-8 and hold no line breaks. Not thread-safe.
class Table {
 public:
  explicit Table(std::vector<Column> columns);

  // One cell a column, already formatted; throws Error for another number of cells.
  void add_row(std::vector<std::string> cells);
  // A rule between groups of rows.
  void add_rule();

  // Every line ends in a line break.
  std::string to_string() const;

 private:
  std::vector<size_t> widths() const;

  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;  // an empty row is a rule
};

}  // namespace farskip
