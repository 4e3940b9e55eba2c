#include "farskip/base/table.h"

#include <algorithm>

#include "farskip/base/error.h"
#include "farskip/base/format.h"

namespace farskip {
namespace {

constexpr std::string_view gap = "  ";

void append_line(std::string& text, std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  text += line + "\n";
}

}  // namespace

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {
  if (columns_.empty()) throw Error("a table needs at least one column");
}

void Table::add_row(std::vector<std::string> cells) {
  if (cells.size() != columns_.size()) {
    throw Error("table row does not fit", {.expected = std::to_string(columns_.size()) + " cells",
                                           .found = std::to_string(cells.size())});
  }
  rows_.push_back(std::move(cells));
}

void Table::add_rule() { rows_.emplace_back(); }

std::vector<size_t> Table::widths() const {
  std::vector<size_t> result(columns_.size());
  const auto widen = [&](size_t column, const std::string& cell) {
    result[column] = std::max(result[column], static_cast<size_t>(display_width(cell)));
  };
  for (size_t column = 0; column < columns_.size(); ++column) {
    widen(column, columns_[column].name);
    widen(column, columns_[column].unit);
    for (const auto& row : rows_) {
      if (!row.empty()) widen(column, row[column]);
    }
  }
  return result;
}

std::string Table::to_string() const {
  const std::vector<size_t> width = widths();
  std::string text;
  const auto append_cells = [&](auto cell_of) {
    std::string line;
    for (size_t column = 0; column < columns_.size(); ++column) {
      const std::string& cell = cell_of(column);
      const std::string padding(width[column] - static_cast<size_t>(display_width(cell)), ' ');
      if (column > 0) line += gap;
      line += columns_[column].align == Align::left ? cell + padding : padding + cell;
    }
    append_line(text, std::move(line));
  };
  const auto append_rule = [&] {
    std::string line;
    for (size_t column = 0; column < columns_.size(); ++column) {
      if (column > 0) line += gap;
      line += std::string(width[column], '-');
    }
    append_line(text, std::move(line));
  };

  append_cells([&](size_t column) -> const std::string& { return columns_[column].name; });
  if (std::ranges::any_of(columns_, [](const Column& column) { return !column.unit.empty(); })) {
    append_cells([&](size_t column) -> const std::string& { return columns_[column].unit; });
  }
  append_rule();
  for (const auto& row : rows_) {
    if (row.empty()) {
      append_rule();
    } else {
      append_cells([&](size_t column) -> const std::string& { return row[column]; });
    }
  }
  return text;
}

}  // namespace farskip
