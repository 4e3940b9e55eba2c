#include "farskip/eval/task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "../base/temporary_folder.h"
#include "farskip/base/error.h"
#include "farskip/base/files.h"

namespace farskip {
namespace {

using testing::HasSubstr;

const std::string question = R"({"query": "Q: a?", "choices": ["x", "yy"], "gold": 1})";

class Tasks : public testing::Test {
 protected:
  Task read(const std::string& content) const {
    write_file_atomically(folder_.path() / "t.jsonl", content);
    return read_task(folder_.path(), "t");
  }
  template <typename Expected>
  std::string error_of(const std::string& content) const {
    try {
      read(content);
    } catch (const Expected& error) {
      return error.what();
    }
    return "accepted";
  }

  TemporaryFolder folder_;
};

TEST_F(Tasks, ChoicesStandBehindTheAnswerSign) {
  const Task task =
      read(R"({"query": "Question: why?\n \u3000\n", "choices": ["So", "N\u00f6"], "gold": 0})");
  EXPECT_EQ(task.name, "t");
  EXPECT_TRUE(task.continuations_differ);
  ASSERT_EQ(task.questions.size(), 1u);
  const Question& only = task.questions[0];
  EXPECT_EQ(only.gold, 0u);
  EXPECT_EQ(only.choices[0].context, "Question: why?\nAnswer:");
  EXPECT_EQ(only.choices[0].continuation, " So");
  EXPECT_EQ(only.choices[0].bytes, 2u);
  EXPECT_EQ(only.choices[1].bytes, 3u) << "bytes, not characters";
}

TEST_F(Tasks, ContextsMayBeWhatDiffers) {
  const Task task =
      read(R"({"context_options": ["so A", "so B"], "continuation": "won.", "gold": 1})");
  EXPECT_FALSE(task.continuations_differ);
  const Question& only = task.questions.at(0);
  EXPECT_EQ(only.choices[1].context, "so B");
  EXPECT_EQ(only.choices[0].continuation, " won.");
  EXPECT_EQ(only.choices[1].continuation, " won.");
}

TEST_F(Tasks, HaveALineForEveryQuestion) {
  EXPECT_EQ(read(question + "\n" + question + "\n").questions.size(), 2u);
  EXPECT_EQ(read(question + "\n" + question).questions.size(), 2u);
  const std::string three = R"({"query": "Q", "choices": ["x", "y", "z"], "gold": 2})";
  EXPECT_NEAR(read(question + "\n" + three).chance(), (1. / 2 + 1. / 3) / 2, 1e-12);
}

TEST_F(Tasks, WrongQuestionsAreNamedByLine) {
  const auto wrong = [&](const std::string& line) {
    return error_of<ConfigError>(question + "\n" + line);
  };
  EXPECT_THAT(wrong(R"({"choices": ["x", "y"], "gold": 0})"), HasSubstr("t.jsonl: line 2: query"));
  EXPECT_THAT(wrong(R"({"query": "Q", "gold": 0})"), HasSubstr("choices"));
  EXPECT_THAT(wrong(R"({"query": "Q", "choices": ["x"], "gold": 0})"), HasSubstr("1 and gold 0"));
  EXPECT_THAT(wrong(R"({"query": "Q", "choices": ["x", ""], "gold": 0})"), HasSubstr("choices"));
  EXPECT_THAT(wrong(R"({"query": "", "choices": ["x", "y"], "gold": 0})"), HasSubstr("query"));
  EXPECT_THAT(wrong(R"({"query": "Q", "choices": ["x", 3], "gold": 0})"), HasSubstr("choices"));
  EXPECT_THAT(wrong(R"({"query": "Q", "choices": ["x", "y"], "gold": 2})"), HasSubstr("gold 2"));
  EXPECT_THAT(wrong(R"({"query": "Q", "choices": ["x", "y"], "gold": -1})"), HasSubstr("gold"));
  EXPECT_THAT(wrong(R"({"query": "Q", "choices": ["x", "y"], "gold": "0"})"), HasSubstr("gold"));
  EXPECT_THAT(wrong(R"({"context_options": ["a", "b"], "continuation": "c", "gold": 0})"),
              HasSubstr("query"))
      << "of two forms";
  EXPECT_THAT(wrong("[]"), HasSubstr("line 2"));
}

TEST_F(Tasks, FilesThatAreNoneAreRefused) {
  EXPECT_THROW(read_task(folder_.path(), "absent"), FileError);
  EXPECT_THAT(error_of<FileError>(""), HasSubstr("no questions"));
  EXPECT_THAT(error_of<FileError>(question + "\n\n"), HasSubstr("line 2"));
  EXPECT_THAT(error_of<FileError>(question.substr(0, 20)), HasSubstr("line 1"));
  EXPECT_THAT(error_of<FileError>(question + question), HasSubstr("line 1"));
}

}  // namespace
}  // namespace farskip
