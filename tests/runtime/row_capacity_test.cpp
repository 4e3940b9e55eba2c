#include "farskip/runtime/row_capacity.h"

#include <gtest/gtest.h>

#include "fixture.h"

namespace farskip::testing {
namespace {

struct Rows {
  Rows()
      : fixture("deepseek_v3"),
        step(fixture.plan("farskip", 2, fixture.golden_tokens(), {.schedule = "overlapped"})),
        sizes(step.graph, Placement::contiguous(fixture.config().router.experts, 2), 0),
        capacity(step.graph, sizes) {
    for (size_t i = 0; i < step.graph.symbols().size(); ++i) {
      if (step.graph.symbols()[i].kind == Symbol::Kind::received_rows) {
        symbols.push_back(static_cast<SymbolId>(i));
      }
    }
  }

  // A step in which routing sends so many rows for each of them.
  void run(int64_t rows) {
    sizes.start({48});
    for (SymbolId symbol : symbols) sizes.bind(symbol, rows);
  }
  bool fits() const { return capacity.fits(symbols); }

  const Fixture fixture;
  const PlannedStep step;
  Sizes sizes;
  RowCapacity capacity;
  std::vector<SymbolId> symbols;
};

TEST(RowCapacity, HasRoomForSomewhatMoreThanWasSeen) {
  Rows rows;
  rows.run(1000);
  EXPECT_FALSE(rows.fits());
  rows.capacity.see();
  EXPECT_TRUE(rows.capacity.is_outgrown());
  rows.capacity.grow();
  EXPECT_FALSE(rows.capacity.is_outgrown());
  for (const int64_t fitting : {0, 1, 1000, 1125}) {
    rows.run(fitting);
    EXPECT_TRUE(rows.fits()) << fitting;
    rows.capacity.see();
    EXPECT_FALSE(rows.capacity.is_outgrown());
  }
  rows.run(2000);
  EXPECT_FALSE(rows.fits());
}

TEST(RowCapacity, GrowsWithTheStepsThatItSees) {
  Rows rows;
  rows.run(1000);
  rows.capacity.see();
  rows.capacity.grow();
  rows.run(2000);
  rows.capacity.see();
  EXPECT_TRUE(rows.capacity.is_outgrown());
  rows.capacity.grow();
  EXPECT_TRUE(rows.fits());
  EXPECT_GE(rows.capacity.of(rows.symbols.at(0)), 2000);
  // Fewer rows later need no less room: what is recorded stays.
  rows.run(10);
  rows.capacity.see();
  rows.capacity.grow();
  EXPECT_GE(rows.capacity.of(rows.symbols.at(0)), 2000);
  rows.capacity.forget();
  EXPECT_FALSE(rows.fits());
}

// Grouped products take other kernels for more rows than these.
TEST(RowCapacity, OfFewRowsStaysWithinFew) {
  Rows rows;
  for (const int64_t few : {0, 1, 100, 128}) {
    rows.capacity.forget();
    rows.run(few);
    rows.capacity.see();
    rows.capacity.grow();
    EXPECT_EQ(rows.capacity.of(rows.symbols.at(0)), 128) << few;
  }
  rows.run(129);
  rows.capacity.see();
  rows.capacity.grow();
  EXPECT_GT(rows.capacity.of(rows.symbols.at(0)), 129);
}

// Sizes that are not known yet fit nowhere.
TEST(RowCapacity, UnknownRowsDoNotFit) {
  Rows rows;
  rows.run(1000);
  rows.capacity.see();
  rows.capacity.grow();
  rows.sizes.start({48});
  EXPECT_FALSE(rows.fits());
  EXPECT_TRUE(rows.capacity.fits({}));
}

}  // namespace
}  // namespace farskip::testing
