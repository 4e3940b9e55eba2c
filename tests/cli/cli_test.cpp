#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "farskip/io/safetensors.h"
#include "run_farskip.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
const std::string fixtures = std::string(FARSKIP_SOURCE_DIR) + "/tests/fixtures/";

class Cli : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    folder_ = fs::temp_directory_path() / ("farskip_cli_" + name + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  fs::path folder_;
};

TEST_F(Cli, UsageErrorsExitWithTwoAndFailuresWithOne) {
  EXPECT_EQ(farskip("--help").status, 0);
  const Output version = farskip("--version");
  EXPECT_EQ(version.status, 0);
  for (const char* part : {"farskip ", "\ntorch ", "\nmpi: "}) {
    EXPECT_NE(version.text.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(farskip("").status, 2);
  EXPECT_EQ(farskip("fly").status, 2);
  EXPECT_EQ(farskip("plan deepseek-v3 --precision int3").status, 2);
  EXPECT_EQ(farskip("bench deepseek-v2-lite --layers 2").status, 2);
  EXPECT_EQ(farskip("inspect no-such-model").status, 1);
  EXPECT_EQ(farskip("plan deepseek-v3 --hardware abacus").status, 1);
  EXPECT_EQ(farskip("plan deepseek-v3 --connectivity sideways").status, 1);
}

// Not first that no launcher was there, or no GPU.
TEST_F(Cli, ABuildWithoutNcclSaysSo) {
  const bool missing = farskip("--version").text.find("nccl: not in") != std::string::npos;
  const Output asked =
      farskip("bench deepseek-v2-lite --layers 2 --random-weights --transport nccl", "&1");
  EXPECT_NE(asked.status, 0);
  EXPECT_NE(asked.text.find(missing ? "this build has no NCCL" : "WORLD_SIZE"), std::string::npos)
      << asked.text;
}

TEST_F(Cli, InspectDescribesAsTextAndJson) {
  EXPECT_NE(farskip("inspect deepseek-v3").text.find("671.0"), std::string::npos);
  const auto json = nlohmann::json::parse(farskip("inspect qwen3-30b-a3b --json").text);
  EXPECT_EQ(json.at("experts"), 128);
  EXPECT_EQ(json.at("moe_layers"), 48);
}

TEST_F(Cli, PlanSimulatesAllPresets) {
  const Output output = farskip(
      "plan deepseek-v3 --expert-parallel 8,16 --json --connectivity "
      "standard,farskip,attention-only,mlp-only,fresh-shared,ladder,depth-2,last-50%");
  ASSERT_EQ(output.status, 0);
  const auto json = nlohmann::json::parse(output.text);
  EXPECT_EQ(json.at("obtained"), "simulated");
  EXPECT_EQ(json.at("rows").size(), 2u * (4 + 7 * 3));
}

TEST_F(Cli, PlanOfTrainingShowsWhatRecomputationBuys) {
  const std::string base = "plan deepseek-v2-lite --layers 6 --training ";
  const Output output = farskip(base + "--json --recompute none,all");
  ASSERT_EQ(output.status, 0);
  const auto json = nlohmann::json::parse(output.text);
  EXPECT_EQ(json.at("step"), "training");
  EXPECT_EQ(json.at("dispatch"), "per-expert");
  ASSERT_EQ(json.at("rows").size(), 2u + (3 + 2) * 2);
  const auto &kept = json.at("rows").at(1), &all = json.at("rows").at(2);
  EXPECT_EQ(kept.at("recompute"), "none");
  EXPECT_EQ(all.at("recompute"), "all");
  EXPECT_LT(all.at("peak_activation_bytes"), kept.at("peak_activation_bytes"));
  EXPECT_GT(all.at("recompute_cost"), 0);
  EXPECT_GT(all.at("backward_percent_overlapped"), 0);
  const std::string table = farskip(base).text;
  for (const char* part : {"simulated training", "recompute", "all-and-dispatch", "% longer"}) {
    EXPECT_NE(table.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(farskip(base + "--recompute most").status, 2);
  EXPECT_EQ(farskip("plan deepseek-v2-lite --recompute all").status, 2);
  EXPECT_EQ(farskip(base + "--form all-reduce").status, 1);
  EXPECT_EQ(farskip(base + "--dispatch per-rank").status, 1);
}

TEST_F(Cli, PlanOfTrainingInPipelineStages) {
  const std::string base =
      "plan deepseek-v2-lite --layers 6 --training --recompute none --connectivity farskip ";
  auto fastest = [&](const std::string& flags) {
    const Output output = farskip(base + "--micro-batches 8 --json " + flags);
    EXPECT_EQ(output.status, 0);
    const auto json = nlohmann::json::parse(output.text);
    EXPECT_EQ(json.at("micro_batches"), 8);
    double seconds = 1e9;
    for (const auto& row : json.at("rows")) {
      seconds = std::min(seconds, row.at("step_seconds").get<double>());
    }
    return seconds;
  };
  const double whole = fastest(""), staged = fastest("--pipeline-stages 3");
  EXPECT_GT(staged, whole / 3);
  EXPECT_LT(staged, 0.6 * whole);
  EXPECT_NE(farskip(base + "--pipeline-stages 2").text.find("2 stages"), std::string::npos);
  EXPECT_EQ(farskip(base + "--pipeline-stages 7").status, 2);
  EXPECT_EQ(farskip("plan deepseek-v2-lite --pipeline-stages 2").status, 2);
}

TEST_F(Cli, LogitsAreTheSameToTheBitHoweverTheyAreScheduled) {
  const std::string base = "logits " + fixtures + "deepseek_v2 --tokens " + fixtures +
                           "deepseek_v2/golden.safetensors --connectivity farskip --ranks 2 ";
  ASSERT_EQ(farskip(base + "--schedule blocking --output " + path("a.safetensors")).status, 0);
  ASSERT_EQ(
      farskip(base + "--expert-chunks 2 --pieces 2 --chaos 3 --output " + path("b.safetensors"))
          .status,
      0);
  const SafetensorsFile a(path("a.safetensors")), b(path("b.safetensors"));
  EXPECT_TRUE(at::equal(a.view("logits"), b.view("logits")));
}

TEST_F(Cli, DispatchFormAndWireAreChosenByFlags) {
  const std::string base =
      "logits " + fixtures + "deepseek_v2 --tokens " + fixtures + "deepseek_v2/golden.safetensors ";
  const auto run = [&](const std::string& flags) {
    const std::string out = path("logits.safetensors");
    EXPECT_EQ(farskip(base + flags + " --output " + out).status, 0) << flags;
    return SafetensorsFile(out).view("logits").clone();
  };
  const auto logits = [&](const std::string& flags) { return run("--ranks 2 " + flags); };
  const auto alone = [&](const std::string& flags) { return run("--ranks 1 " + flags); };
  const at::Tensor plain = logits(""), per_rank = logits("--dispatch per-rank");
  EXPECT_TRUE(at::equal(per_rank, logits("--dispatch per-rank --expert-chunks 2 --chaos 1")));
  EXPECT_TRUE(at::allclose(per_rank, plain, 1e-4, 1e-5));
  EXPECT_FALSE(at::equal(plain, logits("--wire fp8")));
  EXPECT_TRUE(at::equal(alone("--dispatch per-rank --wire fp8"), alone("")));
  EXPECT_EQ(farskip(base + "--dispatch per-node --output " + path("x")).status, 2);
  EXPECT_EQ(farskip(base + "--wire fp4 --output " + path("x")).status, 2);

  const Output bench = farskip("bench " + fixtures +
                               "deepseek_v2 --ranks 2 --tokens-per-rank 32 --dispatch per-rank "
                               "--wire fp8 --expert-chunks 1,2 --repeat 1 --json");
  ASSERT_EQ(bench.status, 0);
  const auto json = nlohmann::json::parse(bench.text);
  EXPECT_EQ(json.at("dispatch"), "per-rank");
  EXPECT_EQ(json.at("wire"), "fp8");
  EXPECT_TRUE(json.at("bits_equal"));
}

TEST_F(Cli, LogitsLeaveNothingBehindOnFailure) {
  const std::string out = path("x.safetensors");
  EXPECT_EQ(farskip("logits " + fixtures + "deepseek_v2 --tokens " + fixtures +
                    "deepseek_v2/config.json --output " + out)
                .status,
            1);
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(Cli, BenchMeasuresComparesBitsAndWritesTraces) {
  const Output output = farskip("bench " + fixtures +
                                "deepseek_v2 --ranks 2 --tokens-per-rank 64 --link-gbps 0.5 "
                                "--link-us 50 --connectivity standard,farskip --schedule "
                                "blocking,released,overlapped --two-batch --expert-chunks 1,2 "
                                "--pieces 1,2 --repeat 2 --json --trace " +
                                path("trace"));
  ASSERT_EQ(output.status, 0);
  const auto json = nlohmann::json::parse(output.text);
  EXPECT_EQ(json.at("rows").size(), 2u * 3 * 5);
  EXPECT_TRUE(json.at("bits_equal"));
  EXPECT_GT(json.at("link").at("bytes_per_second"), 0);
  EXPECT_TRUE(fs::exists(path("trace") + "/bench.svg"));
  EXPECT_TRUE(fs::exists(path("trace") + "/bench.perfetto.json"));
}

// Standard rows all run: the choice is not among what it is compared with.
TEST_F(Cli, BenchChoosesBeforeItRuns) {
  const Output output = farskip("bench " + fixtures +
                                "deepseek_v2 --ranks 2 --tokens-per-rank 64 --link-gbps 0.5 "
                                "--connectivity standard,farskip,attention-only --two-batch "
                                "--expert-chunks 1,2 --repeat 1 --choose --json");
  ASSERT_EQ(output.status, 0);
  const auto json = nlohmann::json::parse(output.text);
  const auto& rows = json.at("rows");
  const auto& weighed = json.at("weighed");
  EXPECT_EQ(rows.size(), 2u * 3 + 1);
  ASSERT_EQ(weighed.size(), 2u * 3);
  for (size_t i = 1; i < weighed.size(); ++i) {
    EXPECT_LE(weighed[i - 1].at("foreseen_seconds"), weighed[i].at("foreseen_seconds"));
  }
  for (const auto& row : rows) {
    if (row.at("connectivity") == "standard") continue;
    for (const char* field : {"connectivity", "schedule", "two_batch", "expert_chunks", "pieces"}) {
      EXPECT_EQ(row.at(field), weighed[0].at(field)) << field;
    }
  }
}

TEST_F(Cli, BenchRefusesTwoBatchesOfOneSequence) {
  const std::string command = "bench " + fixtures +
                              "deepseek_v2 --ranks 2 --connectivity standard --schedule blocking "
                              "--two-batch --repeat 1 --json --tokens-per-rank ";
  EXPECT_EQ(farskip(command + "8 --sequence-length 8", path("errors")).status, 2);
  const std::string errors = read_file(path("errors"));
  EXPECT_NE(errors.find("--sequence-length"), std::string::npos) << errors;
  EXPECT_EQ(farskip(command + "8 --sequence-length 7").status, 0);
  EXPECT_EQ(farskip(command + "1").status, 2);
}

}  // namespace
}  // namespace farskip
