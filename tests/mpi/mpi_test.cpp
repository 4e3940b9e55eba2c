#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::JobResult;

constexpr std::chrono::seconds kLimit(60);

// Runs cases of worker.cpp on some processes and expects that nothing stays behind.
JobResult run(int processes, const std::string& cases) {
  const JobResult job = testing::mpirun(
      {"-n", std::to_string(processes), FARSKIP_MPI_WORKER, "--gtest_filter=" + cases}, kLimit);
  EXPECT_THAT(job.alive, IsEmpty()) << job.output;
  EXPECT_GT(job.seen.size(), static_cast<size_t>(processes));
  EXPECT_NE(job.status, -1) << "had to be killed after " << job.seconds << " s\n" << job.output;
  return job;
}

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++found;
  return found;
}

class Mpi : public ::testing::TestWithParam<int> {};

TEST_P(Mpi, CarriesOutEveryScript) {
  const JobResult job = run(GetParam(), "Works.*");
  EXPECT_EQ(job.status, 0) << job.output;
  EXPECT_EQ(count(job.output, ": as expected"), GetParam()) << job.output;
}

TEST_P(Mpi, FailuresReachEveryRankAndEndTheJob) {
  const JobResult job = run(GetParam(), "Fails.*");
  EXPECT_EQ(job.status, 1) << job.output;
  EXPECT_EQ(count(job.output, ": as expected"), GetParam()) << job.output;
}

INSTANTIATE_TEST_SUITE_P(Processes, Mpi, ::testing::Values(2, 4));

TEST(MpiEnds, OneProcessAlone) { EXPECT_EQ(run(1, "Works.EveryScript").status, 0); }

TEST(MpiEnds, AfterARankWasKilled) {
  const JobResult job = run(3, "Ends.KilledRank");
  EXPECT_NE(job.status, 0);
  EXPECT_LT(job.seconds, 20) << job.output;  // the deadline
}

TEST(MpiEnds, AfterARankStopped) {
  for (const char* where :
       {"Ends.StoppedRank", "Ends.SenderThatStopped", "Ends.RankStoppedInTheMiddleOfATransfer"}) {
    const JobResult job = run(3, where);
    EXPECT_EQ(job.status, 1);
    // The stopped one may get to print before it is killed, too.
    EXPECT_GE(count(job.output, ": as expected"), 2) << job.output;
  }
}

TEST(MpiEnds, WhenARankMakesNoGroup) {
  const JobResult job = run(3, "Ends.RankThatMakesNoGroup");
  EXPECT_EQ(job.status, 1);
  EXPECT_EQ(count(job.output, ": as expected"), 2) << job.output;
}

}  // namespace
}  // namespace farskip
