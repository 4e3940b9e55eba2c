#include "farskip/base/format.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "farskip/base/error.h"
#include "farskip/base/table.h"

namespace farskip {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

TEST(Format, Fixed) {
  EXPECT_EQ(format_fixed(3.14159, 2), "3.14");
  EXPECT_EQ(format_fixed(-0.001, 2), "0.00");
  EXPECT_EQ(format_fixed(-0.01, 2), "-0.01");
  EXPECT_EQ(format_fixed(2, 0), "2");
  EXPECT_EQ(format_fixed(std::nan(""), 2), "-");
  EXPECT_EQ(format_fixed(infinity, 2), "inf");
  EXPECT_EQ(format_fixed(1e308, 17).size(), 309U + 18U);
}

TEST(Format, Integer) {
  EXPECT_EQ(format_integer(0), "0");
  EXPECT_EQ(format_integer(-999), "-999");
  EXPECT_EQ(format_integer(-1000), "-1,000");
  EXPECT_EQ(format_integer(1234567), "1,234,567");
  EXPECT_EQ(format_integer(std::numeric_limits<int64_t>::min()), "-9,223,372,036,854,775,808");
}

TEST(Format, BytesAndCounts) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(999.7), "1.00 kB");
  EXPECT_EQ(format_bytes(1000), "1.00 kB");
  EXPECT_EQ(format_bytes(1.5e9), "1.50 GB");
  EXPECT_EQ(format_bytes(999.999e6), "1.00 GB");
  EXPECT_EQ(format_bytes(-2e6), "-2.00 MB");
  EXPECT_EQ(format_bytes(5e22, 0), "50000 EB");
  EXPECT_EQ(format_count(6.71e11), "671.0 B");
  EXPECT_EQ(format_count(512), "512");
  EXPECT_EQ(format_count(15.7e6), "15.7 M");
}

TEST(Format, DurationsPickTheirUnit) {
  EXPECT_EQ(format_duration(0), "0 s");
  EXPECT_EQ(format_duration(3e-9), "3 ns");
  EXPECT_EQ(format_duration(12.345e-6), "12.35 us");
  EXPECT_EQ(format_duration(0.0123), "12.30 ms");
  EXPECT_EQ(format_duration(999.996e-6), "1.00 ms");
  EXPECT_EQ(format_duration(99.5), "99.50 s");
  EXPECT_EQ(format_duration(-0.5), "-500.00 ms");
  EXPECT_EQ(format_duration(infinity), "inf s");
}

TEST(Format, Percent) {
  EXPECT_EQ(format_percent(0.973), "97.3 %");
  EXPECT_EQ(format_percent(1, 0), "100 %");
  EXPECT_EQ(format_percent(std::nan("")), "-");
}

TEST(Format, DisplayWidthCountsColumns) {
  EXPECT_EQ(display_width("abc"), 3);
  EXPECT_EQ(display_width("µs ×1.2"), 7);
  EXPECT_EQ(display_width("e\u0301"), 1);
  EXPECT_EQ(display_width("\u4e2d\u6587"), 4);
  EXPECT_EQ(display_width("\xff\xc3"), 2);
  EXPECT_EQ(display_width("\xf0\x9f"), 2);
}

TEST(Table, AlignsNumbersRightUnderHeadersWithUnits) {
  Table table({{.name = "schedule", .align = Align::left}, {"step", "ms"}, {"speed-up"}});
  table.add_row({"blocking", "12.5", "1.00"});
  table.add_rule();
  table.add_row({"überlappt", "7", ""});
  EXPECT_EQ(table.to_string(),
            "schedule   step  speed-up\n"
            "             ms\n"
            "---------  ----  --------\n"
            "blocking   12.5      1.00\n"
            "---------  ----  --------\n"
            "überlappt     7\n");
}

TEST(Table, WithoutUnitsHasOneHeaderLine) {
  Table table({{"a"}});
  EXPECT_EQ(table.to_string(), "a\n-\n");
}

TEST(Table, RefusesRowsThatDoNotFit) {
  Table table({{"a"}, {"b"}});
  EXPECT_THROW(table.add_row({"1"}), Error);
  EXPECT_THROW(table.add_row({}), Error);
  EXPECT_THROW(Table({}), Error);
}

}  // namespace
}  // namespace farskip
