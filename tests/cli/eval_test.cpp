#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "../base/temporary_folder.h"
#include "farskip/base/files.h"
#include "farskip/base/json.h"
#include "farskip/io/normalizer.h"
#include "farskip/io/pattern.h"
#include "farskip/model/builtin.h"
#include "farskip/model/stored_connectivity.h"
#include "run_farskip.h"

namespace farskip {
namespace {

const std::string source = FARSKIP_SOURCE_DIR;
const std::string fixtures = source + "/tests/fixtures/";

class EvalCommand : public testing::Test {
 protected:
  void SetUp() override {
    if (!patterns_are_available() || !normalization_is_available()) {
      GTEST_SKIP() << "no PCRE2 or no utf8proc";
    }
  }
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  // A model and a tokenizer of 512 ids.
  static Output eval(const std::string& flags) {
    return farskip("eval " + fixtures + "qwen3_moe --tokenizer " + fixtures +
                   "tokenizers/qwen2.json --data " + source + "/data/eval " + flags);
  }

  const TemporaryFolder folder_;
};

TEST_F(EvalCommand, ScoresQuestionsOfEveryTask) {
  const Output output =
      eval("--tasks arc_easy,arc_challenge,piqa,winogrande --limit 5 --json --items " +
           path("items.jsonl"));
  ASSERT_EQ(output.status, 0);
  const auto json = nlohmann::json::parse(output.text);
  EXPECT_EQ(json.at("obtained"), "measured");
  ASSERT_EQ(json.at("results").size(), 4u);
  for (const auto& result : json.at("results")) {
    EXPECT_EQ(result.at("questions"), 5);
    EXPECT_EQ(result.contains("acc_norm"), result.at("task") != "winogrande");
  }
  EXPECT_EQ(json.at("results")[3].at("chance"), 0.5);
  std::istringstream lines(read_file(path("items.jsonl")));
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const auto item = nlohmann::json::parse(line);
    const auto& scores = item.at("log_probabilities");
    const size_t chosen = item.at("chosen");
    for (const auto& score : scores) EXPECT_LE(score, scores.at(chosen));
  }
  EXPECT_EQ(count, 20);
}

TEST_F(EvalCommand, RanksAndSchedulesGiveTheSameScores) {
  const auto scores = [&](const std::string& flags) {
    EXPECT_EQ(
        eval("--tasks piqa --limit 6 --connectivity farskip --items " + path("i") + " " + flags)
            .status,
        0);
    std::istringstream lines(read_file(path("i")));
    std::vector<double> all;
    for (std::string line; std::getline(lines, line);) {
      for (double score : nlohmann::json::parse(line).at("log_probabilities")) all.push_back(score);
    }
    return all;
  };
  const auto one = scores("--schedule blocking");
  const auto four = scores("--ranks 4 --expert-chunks 2 --batch-tokens 100");
  ASSERT_EQ(one.size(), four.size());
  for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], four[i], 1e-3);
}

TEST_F(EvalCommand, MeasuresLossOnTokens) {
  write_file_atomically(path("text"),
                        "It was a dark and stormy night; the rain fell in torrents.\n");
  ASSERT_EQ(farskip("tokenize --tokenizer " + fixtures + "tokenizers/qwen2.json --out " +
                    path("t") + " " + path("text"))
                .status,
            0);
  const Output output =
      farskip("eval " + fixtures + "qwen3_moe --tasks loss --json --valid " + path("t"));
  ASSERT_EQ(output.status, 0) << "no tokenizer is needed";
  const auto loss = nlohmann::json::parse(output.text).at("results").at(0);
  EXPECT_EQ(loss.at("windows"), 1);
  EXPECT_GT(loss.at("loss_nats").at("value"), 1.0);
  const Output text = farskip("eval " + fixtures + "qwen3_moe --tasks loss --valid " + path("t"));
  EXPECT_NE(text.text.find("nats a token over"), std::string::npos) << text.text;
}

TEST_F(EvalCommand, TheConnectivityIsTheCheckpointsUnlessAFlagSaysOtherwise) {
  std::filesystem::copy(fixtures + "qwen3_moe", path("model"));
  const ModelConfig model = load_model(path("model"));
  Json config = read_json_file(path("model/config.json"));
  config[stored_connectivity_key] =
      stored_connectivity_entry(Connectivity::preset("farskip", model.layers).to_json());
  write_json_file(path("model/config.json"), config);
  const auto connectivity = [&](const std::string& flags) {
    const Output output = farskip("eval " + path("model") + " --tokenizer " + fixtures +
                                  "tokenizers/qwen2.json --data " + source +
                                  "/data/eval --tasks piqa --limit 1 --json " + flags);
    return nlohmann::json::parse(output.text).at("connectivity");
  };
  EXPECT_EQ(connectivity(""), "farskip");
  EXPECT_EQ(connectivity("--connectivity ladder"), "ladder");
}

TEST_F(EvalCommand, WrongUseIsToldFromWrongFiles) {
  const std::string checkpoint = "eval " + fixtures + "qwen3_moe ";
  EXPECT_EQ(farskip(checkpoint).status, 2);
  EXPECT_EQ(farskip(checkpoint + "--tasks piqa").status, 2);
  EXPECT_EQ(farskip(checkpoint + "--tasks loss").status, 2);
  EXPECT_EQ(eval("--tasks piqa --limit 0").status, 2);
  EXPECT_EQ(eval("--tasks piqa --expert-chunks 999").status, 2);
  EXPECT_EQ(eval("--tasks piqa --transport loopback").status, 2);
  EXPECT_EQ(eval("--tasks nonesuch").status, 1);
  EXPECT_EQ(farskip(checkpoint + "--tasks loss --valid no/such/file").status, 1);
  EXPECT_EQ(farskip(checkpoint + "--tasks piqa --data " + source + "/data/eval --tokenizer " +
                    source + "/data/tokenizer/tokenizer.json --items " + path("items"))
                .status,
            1)
      << "8,192 ids, but the model has 512";
  EXPECT_FALSE(std::filesystem::exists(path("items")));
}

}  // namespace
}  // namespace farskip
