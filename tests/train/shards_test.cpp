#include "farskip/train/shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "farskip/base/error.h"
#include "farskip/base/random.h"

namespace farskip {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// The value that stands for one element of the model, wherever it is kept.
std::string element_name(const ShardEntry& entry, int64_t offset) {
  return entry.name + "/" + std::to_string(entry.expert) + "/" +
         std::to_string(entry.first + offset);
}

std::vector<std::string> elements_in(std::span<const ShardEntry> list) {
  std::vector<std::string> names;
  for (const ShardEntry& entry : list) {
    for (int64_t i = 0; i < entry.count; ++i) names.push_back(element_name(entry, i));
  }
  return names;
}

const std::vector<FlatParameter> two_parameters = {
    {.name = "norm", .elements = 3}, {.name = "down", .elements = 4, .of_experts = true}};

TEST(Shards, RanksHoldWhatIsSharedAndTheirExperts) {
  const auto placement = Placement::from_table({{1, 2}, {0}, {}});
  EXPECT_THAT(held_entries(two_parameters, placement, 0),
              ElementsAre(ShardEntry{"norm", -1, 0, 3}, ShardEntry{"down", 1, 0, 4},
                          ShardEntry{"down", 2, 0, 4}));
  EXPECT_THAT(held_entries(two_parameters, placement, 2),
              ElementsAre(ShardEntry{"norm", -1, 0, 3}));
  EXPECT_THROW(held_entries(two_parameters, placement, 3), ConfigError);
  EXPECT_THROW(held_entries(two_parameters, placement, -1), ConfigError);
}

TEST(Shards, BucketIsCutEvenly) {
  // 3 + 4 + 4 = 11 elements over 4 parts: 3 each, one of padding.
  const ShardList bucket = {{"a", -1, 0, 3}, {"b", 7, 10, 4}, {"c", -1, 0, 4}};
  EXPECT_THAT(cut_bucket(bucket, 4, 0).entries, ElementsAre(ShardEntry{"a", -1, 0, 3}));
  EXPECT_THAT(cut_bucket(bucket, 4, 1).entries, ElementsAre(ShardEntry{"b", 7, 10, 3}));
  EXPECT_THAT(cut_bucket(bucket, 4, 2).entries,
              ElementsAre(ShardEntry{"b", 7, 13, 1}, ShardEntry{"c", -1, 0, 2}));
  const BucketPart last = cut_bucket(bucket, 4, 3);
  EXPECT_THAT(last.entries, ElementsAre(ShardEntry{"c", -1, 2, 2}));
  EXPECT_EQ(last.begin, 9);
  EXPECT_EQ(last.length, 3);
  EXPECT_EQ(cut_bucket(bucket, 1, 0).entries, bucket);
}

TEST(Shards, SmallBucketsLeavePartsEmpty) {
  const ShardList bucket = {{"a", -1, 0, 2}};
  EXPECT_THAT(cut_bucket(bucket, 5, 2).entries, IsEmpty());
  EXPECT_EQ(cut_bucket(bucket, 5, 2).length, 1);
  const BucketPart nothing = cut_bucket({}, 3, 1);
  EXPECT_EQ(nothing.length, 0);
  EXPECT_THAT(nothing.entries, IsEmpty());
  EXPECT_THAT(cut_bucket(ShardList{{"a", -1, 0, 0}, {"b", -1, 0, 1}}, 1, 0).entries,
              ElementsAre(ShardEntry{"b", -1, 0, 1}));
  EXPECT_THROW(cut_bucket(bucket, 2, 2), ConfigError);
  EXPECT_THROW(cut_bucket(bucket, 0, 0), ConfigError);
}

TEST(Shards, EntriesAreWrittenAndRead) {
  for (const ShardEntry& entry :
       {ShardEntry{"embedding", -1, 0, 4096}, ShardEntry{"layer.2.experts.down", 5, 128, 128},
        ShardEntry{"x", 0, 7, 0}}) {
    EXPECT_EQ(parse_shard_entry(to_string(entry)), entry);
  }
  EXPECT_EQ(to_string({"layer.2.experts.down", 5, 128, 128}), "layer.2.experts.down[5][128:256]");
  for (const char* text :
       {"", "a", "a[0:", "a[0:1", "[0:1]", "a[1:0]", "a[-1:2]", "a[01:2]", "a[0:1]x", "a[0:1][2]",
        "a[x][0:1]", "a[1][2][0:1]", "a[-1][0:1]", "a[0:99999999999999999999]", "a[0: 1]",
        "a[99999999999][0:1]", "a[][0:1]", "a][0:1]["}) {
    EXPECT_EQ(parse_shard_entry(text), std::nullopt) << text;
  }
}

std::vector<ShardCopy> plan_copies(std::span<const ShardList> saved,
                                   std::span<const ShardEntry> needed) {
  return SavedShards(saved).plan(needed);
}

TEST(Shards, CopiesOfOneLayoutToAnother) {
  const std::vector<ShardList> saved = {{{"a", -1, 0, 5}, {"b", 1, 0, 2}},
                                        {{"b", 0, 0, 2}, {"a", -1, 5, 5}}};
  const ShardList needed = {{"b", 0, 1, 1}, {"a", -1, 3, 4}};
  EXPECT_THAT(plan_copies(saved, needed),
              ElementsAre(ShardCopy{1, {0, 1}, {0, 0}, 1}, ShardCopy{0, {0, 3}, {1, 0}, 2},
                          ShardCopy{1, {1, 0}, {1, 2}, 2}));
  EXPECT_THAT(plan_copies(saved, {}), IsEmpty());
  EXPECT_THAT(plan_copies({}, ShardList{{"a", -1, 0, 0}}), IsEmpty());
}

TEST(Shards, OverlappingRunsAreReadOnce) {
  const std::vector<ShardList> saved = {
      {{"a", -1, 0, 4}}, {{"a", -1, 2, 8}}, {{"a", -1, 0, 4}, {"a", -1, 3, 2}}};
  EXPECT_THAT(plan_copies(saved, ShardList{{"a", -1, 1, 9}}),
              ElementsAre(ShardCopy{0, {0, 1}, {0, 0}, 3}, ShardCopy{1, {0, 2}, {0, 3}, 6}));
}

std::string missing_from(const std::vector<ShardList>& saved, const ShardEntry& needed) {
  try {
    plan_copies(saved, ShardList{needed});
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Shards, GapsAreNamed) {
  const std::vector<ShardList> saved = {{{"a", -1, 0, 5}, {"e", 1, 0, 5}}, {{"a", -1, 6, 5}}};
  EXPECT_THAT(missing_from(saved, {"a", -1, 2, 6}), HasSubstr("a[2:8]: saved state lacks"));
  EXPECT_THAT(missing_from(saved, {"a", -1, 2, 6}), HasSubstr("expected element 5"));
  EXPECT_THAT(missing_from(saved, {"a", -1, 10, 2}), HasSubstr("expected element 11"));
  EXPECT_THAT(missing_from(saved, {"e", 2, 0, 1}), HasSubstr("e[2][0:1]"));
  EXPECT_THAT(missing_from(saved, {"e", -1, 0, 1}), HasSubstr("e[0:1]"));
  EXPECT_THAT(missing_from({}, {"e", -1, 0, 1}), HasSubstr("0 shards"));
}

struct RandomModel {
  std::vector<FlatParameter> parameters;
  int experts = 0;
};

RandomModel random_model(Random& random) {
  RandomModel model;
  model.experts = static_cast<int>(1 + random.below(9));
  const auto count = static_cast<int>(1 + random.below(6));
  for (int i = 0; i < count; ++i) {
    model.parameters.push_back({.name = "p" + std::to_string(i),
                                .elements = static_cast<int64_t>(random.below(20)),
                                .of_experts = random.below(2) == 0});
  }
  return model;
}

Placement random_placement(int experts, Random& random) {
  std::vector<std::vector<int>> table(1 + random.below(6));
  for (int expert = 0; expert < experts; ++expert) {
    table[random.below(table.size())].push_back(expert);
  }
  return Placement::from_table(std::move(table));
}

// Every rank's list for a random number of ranks.
std::vector<ShardList> random_layout(const RandomModel& model, Random& random) {
  const Placement placement = random_placement(model.experts, random);
  const auto data_parallel = static_cast<int>(1 + random.below(5));
  std::vector<ShardList> lists;
  for (int rank = 0; rank < placement.ranks() * data_parallel; ++rank) {
    const OptimizerShard shard = optimizer_shard(model.parameters, placement, data_parallel, rank);
    for (const BucketPart* part : {&shard.shared, &shard.experts}) {
      EXPECT_LE(elements_of(part->entries), part->length);
    }
    lists.push_back(shard.shared.entries);
    lists.back().insert(lists.back().end(), shard.experts.entries.begin(),
                        shard.experts.entries.end());
  }
  return lists;
}

std::map<std::string, int> times_kept(const std::vector<ShardList>& lists) {
  std::map<std::string, int> times;
  for (const ShardList& list : lists) {
    for (const std::string& element : elements_in(list)) ++times[element];
  }
  return times;
}

TEST(Shards, OverAllRanksEveryElementIsKeptOnce) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Random random(seed);
    const RandomModel model = random_model(random);
    const auto kept = times_kept(random_layout(model, random));
    size_t elements = 0;
    for (const FlatParameter& parameter : model.parameters) {
      elements +=
          static_cast<size_t>(parameter.elements * (parameter.of_experts ? model.experts : 1));
    }
    ASSERT_EQ(kept.size(), elements) << seed;
    for (const auto& [element, times] : kept) ASSERT_EQ(times, 1) << seed << " " << element;
  }
}

TEST(Shards, PartsOfABucketFollowEachOther) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Random random(seed);
    ShardList bucket;
    for (uint64_t i = random.below(6); i > 0; --i) {
      bucket.push_back({.name = "p" + std::to_string(i),
                        .first = static_cast<int64_t>(random.below(5)),
                        .count = static_cast<int64_t>(random.below(12))});
    }
    const auto parts = static_cast<int>(1 + random.below(9));
    std::vector<std::string> joined;
    for (int part = 0; part < parts; ++part) {
      const BucketPart cut = cut_bucket(bucket, parts, part);
      // Only the padding at the end of the bucket may be missing.
      ASSERT_EQ(elements_of(cut.entries),
                std::clamp<int64_t>(elements_of(bucket) - cut.begin, 0, cut.length));
      const auto elements = elements_in(cut.entries);
      joined.insert(joined.end(), elements.begin(), elements.end());
    }
    ASSERT_EQ(joined, elements_in(bucket)) << seed;
  }
}

// Carries out a plan on the names of elements.
std::vector<std::string> copied(const std::vector<ShardList>& saved, const ShardList& needed) {
  std::vector<std::vector<std::string>> filled;
  for (const ShardEntry& entry : needed) {
    filled.emplace_back(static_cast<size_t>(entry.count), "nothing");
  }
  for (const ShardCopy& copy : plan_copies(saved, needed)) {
    for (int64_t i = 0; i < copy.count; ++i) {
      std::string& place = filled.at(copy.to.entry).at(static_cast<size_t>(copy.to.offset + i));
      EXPECT_EQ(place, "nothing") << "twice";
      place = element_name(saved.at(copy.file).at(copy.from.entry), copy.from.offset + i);
    }
  }
  std::vector<std::string> all;
  for (const auto& each : filled) all.insert(all.end(), each.begin(), each.end());
  return all;
}

TEST(Shards, AnyLayoutIsPutTogetherFromAnyOther) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    const RandomModel model = random_model(random);
    std::vector<ShardList> saved = random_layout(model, random);
    for (ShardList& list : saved) random.shuffle(list.begin(), list.end());
    for (const ShardList& needed : random_layout(model, random)) {
      ASSERT_EQ(copied(saved, needed), elements_in(needed)) << seed;
    }
    const Placement one = Placement::contiguous(model.experts, 1);
    const ShardList whole = held_entries(model.parameters, one, 0);
    ASSERT_EQ(copied(saved, whole), elements_in(whole)) << seed;
  }
}

TEST(Shards, AMissingRankIsNoticed) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Random random(seed);
    const RandomModel model = random_model(random);
    std::vector<ShardList> saved = random_layout(model, random);
    const auto lost = saved.begin() + static_cast<std::ptrdiff_t>(random.below(saved.size()));
    const bool had_some = elements_of(*lost) > 0;
    saved.erase(lost);
    const Placement one = Placement::contiguous(model.experts, 1);
    const ShardList whole = held_entries(model.parameters, one, 0);
    if (had_some) {
      EXPECT_THROW(plan_copies(saved, whole), ConfigError) << seed;
    } else {
      EXPECT_NO_THROW(plan_copies(saved, whole)) << seed;
    }
  }
}

}  // namespace
}  // namespace farskip
