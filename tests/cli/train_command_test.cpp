// farskip train as a process: signals, kills, wrong input, disks that refuse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "../base/temporary_folder.h"
#include "../io/learnable_text.h"
#include "farskip/base/files.h"
#include "farskip/base/folders.h"
#include "farskip/train/checkpoint_folder.h"
#include "farskip/train/manifest.h"
#include "farskip/train/run_metrics.h"
#include "run_farskip.h"
#include "running_farskip.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class TrainCommand : public ::testing::Test {
 protected:
  TrainCommand() {
    testing::write_learnable_text(path("train.tokens"), 20000, 1);
    testing::write_learnable_text(path("valid.tokens"), 2000, 2);
  }

  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  // A run into the sub-folder `name`, unless the flags say otherwise.
  std::string command(const std::string& name, const std::string& flags) const {
    const std::string model =
        std::string(FARSKIP_SOURCE_DIR) + "/tests/fixtures/deepseek_v2/config.json";
    std::string text = "train " + flags;
    for (const auto& [flag, value] : {std::pair<std::string, std::string>{"--model", model},
                                      {"--data", path("train.tokens")},
                                      {"--validation", path("valid.tokens")},
                                      {"--out", path(name)},
                                      {"--ranks", "2"},
                                      {"--sequence-length", "24"},
                                      {"--sequences", "8"},
                                      {"--validation-sequences", "8"},
                                      {"--learning-rate", "3e-3"},
                                      {"--warmup-steps", "5"},
                                      {"--log-every", "1"}}) {
      if (flags.find(flag + " ") == std::string::npos) text += " " + flag + " " + value;
    }
    return text;
  }
  Output train(const std::string& name, const std::string& flags) const {
    return farskip(command(name, flags), path("errors"));
  }
  std::string errors() const { return read_file(path("errors")); }

  // Losses by step, the validation's under step 0.
  std::map<int64_t, double> losses(const std::string& name) const {
    const RunMetrics metrics = read_run_metrics(path(name));
    std::map<int64_t, double> losses;
    for (const auto& line : metrics.training) losses[line.step] = line.loss;
    for (const auto& line : metrics.validation) losses[0] = line.loss;
    EXPECT_EQ(losses.size(), metrics.training.size() + metrics.validation.size());
    return losses;
  }
  std::string state(const std::string& name) const {
    const auto latest = find_latest_checkpoint(path(name)).folder;
    if (!latest) return "none";
    return latest->filename().string() + read_file(*latest / shard_file_name(0)) +
           read_file(*latest / shard_file_name(1));
  }

  // The command fails with `status`, says all of `parts`, and leaves no checkpoint.
  void expect_refused(int status, const std::string& flags, const std::vector<std::string>& parts) {
    SCOPED_TRACE(flags);
    EXPECT_EQ(train("refused", flags).status, status);
    for (const std::string& part : parts) EXPECT_THAT(errors(), HasSubstr(part));
    EXPECT_FALSE(find_latest_checkpoint(path("refused")).folder);
  }

  const TemporaryFolder folder_;
};

TEST_F(TrainCommand, InterruptEndsTheRunBehindItsStepWithACheckpoint) {
  RunningFarskip run(command("run", "--steps 1000000"), path("output"));
  const fs::path metrics = metrics_path(path("run"));
  ASSERT_TRUE(run.runs_until([&] { return fs::exists(metrics) && fs::file_size(metrics) > 800; }))
      << run.output();
  run.send(SIGINT);
  EXPECT_EQ(run.wait(), 0) << run.output();
  EXPECT_THAT(run.output(), AllOf(HasSubstr("saved "), HasSubstr("go on with --resume")));
  const auto latest = find_latest_checkpoint(path("run")).folder;
  ASSERT_TRUE(latest);
  EXPECT_EQ(read_manifest(*latest).point.step, read_run_metrics(path("run")).training.back().step);
}

TEST_F(TrainCommand, RunThatIsKilledAgainAndAgainEndsWithTheSameBits) {
  const std::string flags = "--steps 60 --checkpoint-every 3 --keep 100 --balance-loss 0.01";
  ASSERT_EQ(train("whole", flags).status, 0) << errors();
  const auto whole = losses("whole");
  ASSERT_EQ(whole.size(), 61u);

  Random random(5);
  int kills = 0, resumes = 0;
  auto next = [&] {
    const bool resume = find_latest_checkpoint(path("parts")).folder.has_value();
    resumes += resume;
    return command("parts", flags + (resume ? " --resume" : ""));
  };
  const fs::path metrics = metrics_path(path("parts"));
  for (int round = 0; round < 4; ++round) {
    RunningFarskip run(next(), path("output"));
    // Somewhere behind the first step that this process has done.
    const auto before = fs::exists(metrics) ? fs::last_write_time(metrics) : fs::file_time_type();
    run.runs_until([&] { return fs::exists(metrics) && fs::last_write_time(metrics) != before; });
    std::this_thread::sleep_for(std::chrono::milliseconds(random.below(200)));
    run.send(SIGKILL);
    kills += run.wait() == -SIGKILL;
  }
  EXPECT_GT(kills, 1) << "the run was over too soon";
  ASSERT_EQ(farskip(next(), path("errors")).status, 0) << errors();
  EXPECT_GT(resumes, 1);
  EXPECT_EQ(losses("parts"), whole);
  EXPECT_TRUE(state("parts") == state("whole"));
}

TEST_F(TrainCommand, WrongSettingsAreNamed) {
  EXPECT_EQ(train("refused", "--fly true").status, 2);
  EXPECT_EQ(train("refused", "--steps many").status, 2);
  EXPECT_EQ(farskip("train --data " + path("train.tokens"), path("errors")).status, 2);
  EXPECT_THAT(errors(), HasSubstr("--model"));
  expect_refused(1, "--steps 0", {"steps", "1 or more"});
  expect_refused(1, "--decay exponential", {"decay", "cosine"});
  expect_refused(1, "--connectivity sideways", {"sideways"});
  expect_refused(2, "--data-parallel 3", {"--data-parallel"});
  expect_refused(1, "--bias-update-speed 0.1", {"bias_update_speed"});
  const auto with_config = [&](const std::string& text) {
    write_file_atomically(path("config.json"), text);
    return "--config " + path("config.json");
  };
  expect_refused(1, with_config(R"({"steps": 3, "speed": 9})"), {"config.json", "speed"});
  expect_refused(1, with_config(R"({"steps": "many"})"), {"config.json", "steps"});
  expect_refused(1, with_config(R"({"two_batch": 1})"), {"config.json", "two_batch"});
  expect_refused(1, with_config("[]"), {"config.json"});
  expect_refused(1, with_config("{\"steps\": 3,\n"), {"config.json"});
  expect_refused(1, "--config " + path("none.json"), {"none.json"});
  EXPECT_FALSE(fs::exists(path("refused")));
}

TEST_F(TrainCommand, FlagsWinOverTheFileAndBothAreWrittenDown) {
  write_file_atomically(path("config.json"), R"({"steps": 3, "seed": 9, "two_batch": true})");
  ASSERT_EQ(train("run", "--steps 2 --config " + path("config.json")).status, 0) << errors();
  const auto settings = nlohmann::json::parse(read_file(path("run") + "/config.json"));
  EXPECT_EQ(settings.at("steps"), 2);
  EXPECT_EQ(settings.at("seed"), 9);
  EXPECT_EQ(settings.at("two_batch"), true);
  EXPECT_EQ(settings.at("sequences"), 8);
  // The run goes on by its own settings.
  EXPECT_EQ(farskip("train --resume --ranks 1 --steps 4 --config " + path("run") + "/config.json",
                    path("errors"))
                .status,
            0)
      << errors();
  EXPECT_EQ(read_run_metrics(path("run")).training.size(), 4u);
}

TEST_F(TrainCommand, WrongDataIsNamed) {
  const std::string whole = read_file(path("train.tokens"));
  for (size_t bytes : {size_t{0}, size_t{20}, whole.size() / 2, whole.size() - 1}) {
    write_file_atomically(path("cut.tokens"), whole.substr(0, bytes));
    expect_refused(1, "--data " + path("cut.tokens"), {"cut.tokens"});
  }
  expect_refused(1, "--data " + path("none.tokens"), {"none.tokens"});
  expect_refused(1, "--sequence-length 30000", {"30"});
  expect_refused(1, "--checkpoint " + path(""), {"config.json"});
}

TEST_F(TrainCommand, FoldersThatCanNotBeWrittenAreNamed) {
  const std::string out = " --steps 2 --out ";
  expect_refused(1, out + "/proc/farskip", {"/proc/farskip"});
  expect_refused(1, out + path("train.tokens"), {"train.tokens"});
  fs::create_directories(path("full"));
  fs::create_symlink("/dev/full", path("full") + "/metrics.jsonl");
  expect_refused(1, out + path("full"), {"metrics.jsonl"});
}

// No file may grow beyond 100 kB: settings and metrics fit, a checkpoint does not.
TEST_F(TrainCommand, FullDiskLeavesNoCheckpointAndTheRunCanGoOn) {
  const auto limited = [&](const std::string& arguments) {
    const std::string command = "trap '' XFSZ; ulimit -f 200; exec " + std::string(FARSKIP_BINARY) +
                                " " + arguments + " >/dev/null 2>" + path("errors");
    return WEXITSTATUS(std::system(("sh -c \"" + command + "\"").c_str()));
  };
  ASSERT_EQ(train("run", "--steps 8 --checkpoint-every 4").status, 0) << errors();
  const auto whole = losses("run");
  EXPECT_EQ(limited(command("full", "--steps 8 --checkpoint-every 4")), 1);
  EXPECT_THAT(errors(), AllOf(HasSubstr("full"), HasSubstr("rank-0000")));
  for (const fs::path& entry : folder_entries(path("full"))) {
    EXPECT_TRUE(entry.has_extension()) << entry << " is left";
  }
  ASSERT_EQ(train("full", "--steps 8 --checkpoint-every 4").status, 0) << errors();
  EXPECT_EQ(losses("full"), whole);
}

}  // namespace
}  // namespace farskip
