#include "farskip/train/run_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "../base/error_of.h"
#include "../base/temporary_folder.h"
#include "farskip/base/error.h"
#include "farskip/base/files.h"

namespace farskip {
namespace {

using testing::HasSubstr;

const std::string first =
    R"({"step": 1, "tokens": 256, "loss": 9.5, "tokens_per_second": 1000.5, "more": [1]})";
const std::string second = R"({"step": 2, "tokens": 512, "loss": 9, "tokens_per_second": 1200})";
const std::string validation = R"({"step": 2, "tokens": 512, "validation_loss": 9.25})";

class RunMetricsFile : public testing::Test {
 protected:
  RunMetrics read(const std::string& content) const {
    write_file_atomically(metrics_path(folder_.path()), content);
    return read_run_metrics(folder_.path());
  }
  template <typename Expected>
  std::string error(const std::string& content) const {
    return error_of<Expected>([&] { read(content); });
  }

  const TemporaryFolder folder_;
};

TEST_F(RunMetricsFile, HoldsTrainingAndValidation) {
  const RunMetrics metrics = read(first + "\n" + second + "\n" + validation + "\n");
  ASSERT_EQ(metrics.training.size(), 2u);
  EXPECT_EQ(metrics.training[0].step, 1);
  EXPECT_EQ(metrics.training[0].tokens, 256);
  EXPECT_EQ(metrics.training[0].loss, 9.5);
  EXPECT_EQ(metrics.training[0].tokens_per_second, 1000.5);
  EXPECT_EQ(metrics.training[1].loss, 9);
  ASSERT_EQ(metrics.validation.size(), 1u);
  EXPECT_EQ(metrics.validation[0].step, 2);
  EXPECT_EQ(metrics.validation[0].tokens, 512);
  EXPECT_EQ(metrics.validation[0].loss, 9.25);
}

TEST_F(RunMetricsFile, LineThatIsBeingWrittenIsLeftOut) {
  for (size_t bytes = 0; bytes <= second.size(); bytes += 10) {
    EXPECT_EQ(read(first + "\n" + second.substr(0, bytes)).training.size(), 1u) << bytes;
  }
}

TEST_F(RunMetricsFile, WrongLinesAreNamed) {
  const std::string good = first + "\n";
  EXPECT_THAT(error<FileError>(good + "{\"step\": 2,\n"), HasSubstr("metrics.jsonl:2"));
  EXPECT_THAT(error<FileError>(good + second + "\n\n"), HasSubstr("metrics.jsonl:3"));
  EXPECT_THAT(error<ConfigError>("7\n"), HasSubstr("metrics.jsonl:1"));
  EXPECT_THAT(error<ConfigError>(good + R"({"tokens": 1})" + "\n"), HasSubstr("step"));
  EXPECT_THAT(error<ConfigError>(good + R"({"step": 2, "loss": 1})" + "\n"),
              testing::AllOf(HasSubstr("metrics.jsonl:2"), HasSubstr("tokens")));
  EXPECT_THAT(error<ConfigError>(good + R"({"step": 2, "tokens": 1, "loss": null})" + "\n"),
              testing::AllOf(HasSubstr("metrics.jsonl:2"), HasSubstr("loss")));
  EXPECT_THAT(error<ConfigError>(good + R"({"step": 2, "tokens": 1, "loss": "low"})" + "\n"),
              HasSubstr("loss"));
  EXPECT_THAT(error<ConfigError>(second + "\n" + good),
              testing::AllOf(HasSubstr("metrics.jsonl:2"), HasSubstr("go back")));
}

TEST_F(RunMetricsFile, RunWithoutLinesIsNone) {
  EXPECT_THROW(read_run_metrics(folder_.path() / "none"), FileError);
  EXPECT_THAT(error<FileError>(""), HasSubstr("nothing yet"));
  EXPECT_THAT(error<FileError>(first), HasSubstr("nothing yet"));
}

}  // namespace
}  // namespace farskip
