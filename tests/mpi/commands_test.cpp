#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <tuple>

#include "../io/learnable_text.h"
#include "farskip/base/files.h"
#include "farskip/io/safetensors.h"
#include "farskip/train/checkpoint_folder.h"
#include "farskip/train/manifest.h"
#include "farskip/train/run_metrics.h"
#include "launch.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::JobResult;
using Words = std::vector<std::string>;

constexpr std::chrono::seconds kLimit(60);
const std::string fixtures = std::string(FARSKIP_SOURCE_DIR) + "/tests/fixtures/";

class MpiCommands : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  // The words of one command over mpi.
  Words logits(const std::string& family, const Words& more) const {
    Words words = {FARSKIP_BINARY, "logits",   fixtures + family,      "--transport",
                   "mpi",          "--output", path("mpi.safetensors")};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  Words golden(const std::string& family) const {
    return {"--tokens", fixtures + family + "/golden.safetensors"};
  }

  // Every element of `commands` is what one process runs.
  static JobResult run(const std::vector<Words>& commands) {
    Words words;
    for (const Words& command : commands) {
      if (!words.empty()) words.push_back(":");
      words.insert(words.end(), {"-n", "1"});
      words.insert(words.end(), command.begin(), command.end());
    }
    const JobResult job = testing::mpirun(words, kLimit);
    EXPECT_THAT(job.alive, IsEmpty()) << job.output;
    EXPECT_NE(job.status, -1) << job.output;
    return job;
  }

  // A command of one process: its status.
  static int run_alone(const Words& command) {
    std::string line;
    for (const std::string& word : command) line += word + " ";
    return std::system((line + ">/dev/null 2>&1").c_str());
  }

  const fs::path folder_ = fs::temp_directory_path() / ("farskip_mpi_" + std::to_string(getpid()));
};

Words operator+(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST_F(MpiCommands, AreTheBitsOfLocalRanks) {
  const Words plain = {"--connectivity", "farskip", "--expert-chunks", "2"};
  const Words per_rank = plain + Words{"--dispatch", "per-rank", "--wire", "fp8"};
  const std::vector<std::tuple<size_t, std::string, Words>> cases = {
      {2, "mixtral", plain}, {4, "deepseek_v2", plain}, {3, "deepseek_v2", per_rank}};
  for (const auto& [ranks, family, form] : cases) {
    std::string local = std::string(FARSKIP_BINARY) + " logits " + fixtures + family + " --ranks " +
                        std::to_string(ranks) + " --output " + path("local.safetensors");
    for (const std::string& word : golden(family) + form) local += " " + word;
    ASSERT_EQ(std::system((local + " 2>/dev/null").c_str()), 0);
    const Words chaos = ranks == 2 ? Words{"--chaos", "3"} : Words{};
    const JobResult job =
        run(std::vector<Words>(ranks, logits(family, golden(family) + form + chaos)));
    ASSERT_EQ(job.status, 0) << job.output;
    const SafetensorsFile a(path("local.safetensors")), b(path("mpi.safetensors"));
    EXPECT_TRUE(at::equal(a.view("logits"), b.view("logits"))) << family << " " << ranks;
    fs::remove(path("mpi.safetensors"));
  }
}

TEST_F(MpiCommands, RanksIsTheSizeOfTheJob) {
  const Words command = logits("mixtral", golden("mixtral") + Words{"--ranks", "3"});
  const JobResult job = run({command, command});
  EXPECT_EQ(job.status, 2);
  EXPECT_THAT(job.output,
              AllOf(HasSubstr("farskip: rank "), HasSubstr("expected 2"), HasSubstr("found 3")));
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(MpiCommands, ProcessesThatAreNotAlikeAreRefused) {
  const Words plain = logits("mixtral", golden("mixtral"));
  const auto expect_error = [&](const Words& other, const std::string& part) {
    const JobResult job = run({plain, other});
    EXPECT_EQ(job.status, 1);
    EXPECT_THAT(job.output, AllOf(HasSubstr("farskip: rank 0: "), HasSubstr("farskip: rank 1: "),
                                  HasSubstr(part)));
    EXPECT_TRUE(fs::is_empty(folder_));
  };
  expect_error(plain + Words{"--connectivity", "farskip"}, "'farskip' on rank 1");
  expect_error(logits("qwen3_moe", golden("mixtral")), "model: ranks disagree");
}

// One process fails on its own: the others are told why, and nothing is written.
TEST_F(MpiCommands, OneBadFileEndsTheJob) {
  const JobResult job = run({logits("mixtral", golden("mixtral")),
                             logits("mixtral", {"--tokens", fixtures + "mixtral/config.json"})});
  EXPECT_EQ(job.status, 1);
  EXPECT_THAT(job.output, AllOf(HasSubstr("farskip: rank 1: " + fixtures),
                                HasSubstr("rank 1: a rank stopped with an error")));
  EXPECT_TRUE(fs::is_empty(folder_));
}

// The processes plan the same schedules from what was measured on all of them; one prints.
TEST_F(MpiCommands, BenchOverProcesses) {
  const Words command = {FARSKIP_BINARY,
                         "bench",
                         fixtures + "deepseek_v2",
                         "--transport",
                         "mpi",
                         "--tokens-per-rank",
                         "64",
                         "--link-fill",
                         "0.75",
                         "--connectivity",
                         "standard,farskip",
                         "--repeat",
                         "1",
                         "--json"};
  const JobResult job = run({command, command});
  ASSERT_EQ(job.status, 0) << job.output;
  const size_t first = job.output.find('{'), last = job.output.rfind('}');
  ASSERT_NE(first, std::string::npos) << job.output;
  const auto json = nlohmann::json::parse(job.output.substr(first, last - first + 1));
  EXPECT_EQ(json.at("transport"), "mpi");
  EXPECT_EQ(json.at("ranks"), 2);
  EXPECT_EQ(json.at("rows").size(), 3u);
  EXPECT_TRUE(json.at("bits_equal"));
  EXPECT_GT(json.at("link").at("bytes_per_second"), 0);
}

Words train_command(const std::string& tokens, const std::string& out, const Words& more) {
  Words command = {FARSKIP_BINARY,
                   "train",
                   "--model",
                   fixtures + "deepseek_v2/config.json",
                   "--data",
                   tokens,
                   "--validation",
                   tokens,
                   "--validation-sequences",
                   "4",
                   "--out",
                   out,
                   "--sequence-length",
                   "24",
                   "--sequences",
                   "8",
                   "--steps",
                   "5",
                   "--log-every",
                   "1",
                   "--bucket-mib",
                   "0.25",
                   "--expert-chunks",
                   "2",
                   "--balance-loss",
                   "0.01"};
  return command + more;
}

void expect_same_losses(const std::string& expected_run, const std::string& found_run) {
  const RunMetrics expected = read_run_metrics(expected_run), found = read_run_metrics(found_run);
  ASSERT_EQ(found.training.size(), 5u);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(expected.training[i].loss, found.training[i].loss);
  EXPECT_EQ(expected.validation.at(0).loss, found.validation.at(0).loss);
}

// Losses and the states of both ranks; chunks, router losses and an update in several buckets too.
TEST_F(MpiCommands, TrainIsTheBitsOfLocalRanks) {
  testing::write_learnable_text(path("train.tokens"), 5000, 1);
  ASSERT_EQ(run_alone(train_command(path("train.tokens"), path("local"), {"--ranks", "2"})), 0);
  const Words over_mpi = train_command(path("train.tokens"), path("mpi"), {"--transport", "mpi"});
  const JobResult job = run({over_mpi, over_mpi});
  ASSERT_EQ(job.status, 0) << job.output;
  expect_same_losses(path("local"), path("mpi"));
  for (int rank : {0, 1}) {
    const std::string file = "/" + checkpoint_name(5) + "/" + shard_file_name(rank);
    EXPECT_TRUE(read_file(path("local") + file) == read_file(path("mpi") + file)) << rank;
  }
}

TEST_F(MpiCommands, PipelineStagesAreTheBitsOfLocalRanksWithout) {
  testing::write_learnable_text(path("train.tokens"), 5000, 1);
  ASSERT_EQ(run_alone(train_command(path("train.tokens"), path("local"),
                                    {"--ranks", "2", "--micro-batches", "4"})),
            0);
  const Words stages =
      train_command(path("train.tokens"), path("stages"),
                    {"--transport", "mpi", "--micro-batches", "4", "--pipeline-stages", "2"});
  const JobResult job = run({stages, stages, stages, stages});
  ASSERT_EQ(job.status, 0) << job.output;
  expect_same_losses(path("local"), path("stages"));
}

}  // namespace
}  // namespace farskip
