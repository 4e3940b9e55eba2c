#include "farskip/base/checksum.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "farskip/base/random.h"
#include "temporary_folder.h"

namespace farskip {
namespace {

using Bytes = std::vector<std::byte>;

Bytes random_bytes(size_t count, uint64_t seed) {
  Random random(seed);
  Bytes bytes(count);
  for (std::byte& each : bytes) each = static_cast<std::byte>(random());
  return bytes;
}

uint64_t checksum(std::span<const std::byte> bytes) { return Checksum().add(bytes).value(); }

TEST(Checksum, IsTheSameOnEveryMachine) {
  Bytes bytes(100);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  EXPECT_EQ(checksum({}), 0x16C0C01D3EE8E727U);
  EXPECT_EQ(checksum(bytes), 0x64438E4D9703F3C4U);
}

TEST(Checksum, DoesNotDependOnHowBytesAreCut) {
  const Bytes bytes = random_bytes(1000, 1);
  Random random(2);
  for (int round = 0; round < 200; ++round) {
    Checksum cut;
    std::span<const std::byte> rest = bytes;
    while (!rest.empty()) {
      const size_t count = std::min<size_t>(rest.size(), random.below(80));
      cut.add(rest.first(count));
      rest = rest.subspan(count);
    }
    ASSERT_EQ(cut.value(), checksum(bytes));
  }
}

TEST(Checksum, ValueMayBeAskedInBetween) {
  const Bytes bytes = random_bytes(77, 3);
  Checksum sum;
  sum.add(std::span(bytes).first(40));
  EXPECT_EQ(sum.value(), checksum(std::span(bytes).first(40)));
  sum.add(std::span(bytes).subspan(40));
  EXPECT_EQ(sum.value(), checksum(bytes));
}

TEST(Checksum, SeesEveryFlippedBitAndEveryLength) {
  Bytes bytes = random_bytes(200, 4);
  std::set<uint64_t> seen = {checksum(bytes)};
  size_t count = 1;
  for (std::byte& each : bytes) {
    for (int bit = 0; bit < 8; ++bit, ++count) {
      each ^= std::byte{1} << bit;
      seen.insert(checksum(bytes));
      each ^= std::byte{1} << bit;
    }
  }
  const Bytes zeros(200);
  for (size_t length = 0; length <= zeros.size(); ++length, ++count) {
    seen.insert(checksum(std::span(zeros).first(length)));
  }
  EXPECT_EQ(seen.size(), count);
}

TEST(Checksum, SeesExchangedParts) {
  const Bytes bytes = random_bytes(256, 5);
  for (const size_t width : {1, 8, 32, 64}) {
    Bytes exchanged = bytes;
    std::swap_ranges(exchanged.begin(), exchanged.begin() + width, exchanged.begin() + 128);
    EXPECT_NE(checksum(exchanged), checksum(bytes)) << width;
  }
}

TEST(Checksum, OfAFileIsThatOfItsBytes) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "x";
  for (const size_t size : {size_t{0}, size_t{5}, (size_t{4} << 20) + 3}) {
    const Bytes bytes = random_bytes(size, size);
    write_file_atomically(path, [&](OutputFile& file) { file.write(bytes); });
    EXPECT_EQ(stamp_of_file(path), (FileStamp{size, checksum(bytes)}));
  }
  EXPECT_THROW(stamp_of_file(folder.path() / "missing"), FileError);
  EXPECT_THROW(stamp_of_file(folder.path()), FileError);
}

}  // namespace
}  // namespace farskip
