#include "farskip/comm/bootstrap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "farskip/base/error.h"
#include "farskip/comm/frame.h"
#include "farskip/comm/socket.h"
#include "jobs.h"

namespace farskip {
namespace {

using namespace farskip::testing;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Seconds = std::chrono::duration<double>;

class BootstrapRanks : public ::testing::TestWithParam<int> {};

TEST_P(BootstrapRanks, Exchanges) {
  const int size = GetParam();
  const auto job = join_job(size);
  const auto errors = errors_of_ranks(size, [&](int rank) {
    Bootstrap& bootstrap = *job[static_cast<size_t>(rank)];
    EXPECT_EQ(bootstrap.rank(), rank);
    EXPECT_EQ(bootstrap.size(), size);
    for (int round = 0; round < 20; ++round) {
      const std::string own = std::to_string(round) + "/" + std::to_string(rank);
      EXPECT_EQ(bootstrap.broadcast(own), std::to_string(round) + "/0");
      const auto all = bootstrap.all_gather(own);
      ASSERT_EQ(all.size(), static_cast<size_t>(size));
      for (int other = 0; other < size; ++other) {
        EXPECT_EQ(all[static_cast<size_t>(other)],
                  std::to_string(round) + "/" + std::to_string(other));
      }
      bootstrap.barrier();
    }
    const std::string large(1 << 20, static_cast<char>('a' + rank));
    EXPECT_EQ(bootstrap.all_gather(large).back(),
              std::string(1 << 20, static_cast<char>('a' + size - 1)));
    EXPECT_EQ(bootstrap.failure(), std::nullopt);
  });
  EXPECT_THAT(errors, Each(IsEmpty()));
}

INSTANTIATE_TEST_SUITE_P(Ranks, BootstrapRanks, ::testing::Values(1, 2, 5));

// What each rank is told when its own place and options are as given; rank 0 picks the port.
std::vector<std::string> join_errors(std::vector<LaunchPlace> places, double deadline = 20) {
  std::promise<int> listening;
  const std::shared_future<int> port(listening.get_future());
  return errors_of_ranks(static_cast<int>(places.size()), [&](int index) {
    LaunchPlace place = places[static_cast<size_t>(index)];
    if (place.rank > 0) place.port = port.get();
    join_by_sockets(place, {.deadline = Seconds(deadline),
                            .listening = [&](int number) { listening.set_value(number); }});
  });
}

TEST(Bootstrap, WorldSizesThatDiffer) {
  const auto errors =
      join_errors({{.rank = 0, .size = 3}, {.rank = 1, .size = 3}, {.rank = 2, .size = 4}});
  EXPECT_THAT(errors, Each(AllOf(HasSubstr("number of ranks"), HasSubstr("WORLD_SIZE 3"),
                                 HasSubstr("WORLD_SIZE 4 on rank 2"))));
}

TEST(Bootstrap, OneRankTwice) {
  const auto errors =
      join_errors({{.rank = 0, .size = 3}, {.rank = 2, .size = 3}, {.rank = 2, .size = 3}});
  EXPECT_THAT(errors, Each(HasSubstr("a second rank 2")));
}

TEST(Bootstrap, ARankThatStaysAwayIsNamed) {
  const Deadline watch(Seconds(20));
  const auto errors = join_errors({{.rank = 0, .size = 3}, {.rank = 1, .size = 3}}, 0.3);
  EXPECT_THAT(errors[0], HasSubstr("nothing from rank 2"));
  EXPECT_THAT(errors[1], HasSubstr("rank 0"));
  EXPECT_LT(watch.elapsed_seconds(), 10);
}

TEST(Bootstrap, NoRankZero) {
  const LaunchPlace place{.rank = 1, .size = 2, .port = free_port()};
  try {
    join_by_sockets(place, {.deadline = Seconds(0.2)});
    FAIL() << "joined nobody";
  } catch (const CommError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("rank 0 does not answer"),
                                    HasSubstr("127.0.0.1:" + std::to_string(place.port))));
  }
}

TEST(Bootstrap, TakenPortIsSaidAtOnce) {
  const Socket holder = listen_on("127.0.0.1", 0);
  const Deadline watch(Seconds(20));
  try {
    join_by_sockets({.rank = 0, .size = 2, .port = local_port(holder)}, {});
    FAIL() << "listened on a taken port";
  } catch (const CommError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("port is taken"), HasSubstr("FARSKIP_PORT")));
  }
  EXPECT_LT(watch.elapsed_seconds(), 5);
}

TEST(Bootstrap, SenselessPlaces) {
  EXPECT_THROW(join_by_sockets({.rank = 2, .size = 2}), UsageError);
  EXPECT_THROW(join_by_sockets({.rank = 0, .size = 0}), UsageError);
  EXPECT_THROW(join_by_sockets({.rank = 0, .size = 1}, {.deadline = Seconds(0)}), UsageError);
  EXPECT_THROW(join_by_sockets({.rank = 0, .size = 2, .address = "no such host"}), CommError);
  EXPECT_THROW(join_by_sockets({.rank = 0, .size = 2, .address = "192.0.2.1"}), CommError);
}

// Rank 0 of two, whose only visitor sends `bytes`; what rank 0 is told.
std::string rank_zero_hears(const std::string& bytes, double deadline) {
  std::promise<int> listening;
  auto port = listening.get_future();
  std::string result;
  std::jthread rank_zero([&] {
    result = errors_of_ranks(1, [&](int) {
      join_by_sockets({.rank = 0, .size = 2},
                      {.deadline = Seconds(deadline),
                       .listening = [&](int number) { listening.set_value(number); }});
    })[0];
  });
  const Deadline limit(Seconds(20));
  const Socket visitor = connect_to("127.0.0.1", port.get(), limit);
  send_all(visitor, bytes, limit);
  rank_zero.join();
  return result;
}

std::string hello(uint64_t rank, uint64_t size) {
  return encode({FrameKind::hello, PayloadWriter().number(rank).number(size).take()});
}

TEST(Bootstrap, HostileVisitorsOfRankZero) {
  std::string other_version = hello(1, 2), lying = hello(1, 2), endless = hello(1, 2);
  other_version[4] = 9;
  lying[14] = 1;  // 2^48 bytes of payload
  endless[8] = 60;
  EXPECT_THAT(rank_zero_hears("GET / HTTP/1.1\r\n\r\n", 0.2),
              AllOf(HasSubstr("nothing from rank 1"), HasSubstr("1 connections of others")));
  EXPECT_THAT(rank_zero_hears(other_version, 5), HasSubstr("expected format version 1, found"));
  EXPECT_THAT(rank_zero_hears(lying, 5), HasSubstr("claims to be too long"));
  EXPECT_THAT(rank_zero_hears(endless, 0.2), HasSubstr("nothing from rank 1"));
  EXPECT_THAT(rank_zero_hears("", 0.2), HasSubstr("nothing from rank 1"));
  EXPECT_THAT(rank_zero_hears(hello(0, 2), 5), HasSubstr("claim one rank"));
  EXPECT_THAT(rank_zero_hears(hello(1ULL << 40, 2), 5), HasSubstr("claim one rank"));
  EXPECT_THAT(rank_zero_hears(encode({FrameKind::hello, "short"}), 5), HasSubstr("malformed"));
  EXPECT_THAT(rank_zero_hears(encode({FrameKind::goodbye, ""}), 5), HasSubstr("malformed"));
}

TEST(Bootstrap, StrangersDoNotKeepRanksOut) {
  std::promise<int> listening;
  auto port = listening.get_future();
  std::jthread rank_zero([&] {
    const auto bootstrap = join_by_sockets(
        {.rank = 0, .size = 2},
        {.deadline = Seconds(20), .listening = [&](int number) { listening.set_value(number); }});
    bootstrap->barrier();
  });
  const int number = port.get();
  const Deadline limit(Seconds(20));
  std::vector<Socket> strangers;
  for (int i = 0; i < 300; ++i) strangers.push_back(connect_to("127.0.0.1", number, limit));
  send_all(strangers[0], "\x16\x03\x01", limit);
  strangers[1].close();
  join_by_sockets({.rank = 1, .size = 2, .port = number}, {.deadline = Seconds(20)})->barrier();
}

// What rank 1 of two is told by a rank 0 that answers its hello with `bytes`.
std::string rank_one_hears(const std::string& bytes, double deadline, bool close) {
  const Socket listener = listen_on("127.0.0.1", 0);
  std::string result;
  std::jthread rank_one([&] {
    result = errors_of_ranks(1, [&](int) {
      join_by_sockets({.rank = 1, .size = 2, .port = local_port(listener)},
                      {.deadline = Seconds(deadline)})
          ->barrier();
    })[0];
  });
  std::optional<Socket> visitor;
  while (!(visitor = accept_from(listener))) std::this_thread::yield();
  send_all(*visitor, bytes, Deadline(Seconds(5)));
  if (close) {
    while (receive_some(*visitor)->empty()) std::this_thread::yield();  // the hello
    visitor.reset();
  }
  rank_one.join();
  return result;
}

TEST(Bootstrap, HostileRankZero) {
  const std::string welcome = encode({FrameKind::welcome, ""});
  EXPECT_THAT(rank_one_hears("SSH-2.0-x", 5, false), HasSubstr("no farskip process"));
  EXPECT_THAT(rank_one_hears("", 0.2, false), HasSubstr("rank 0 let nobody in"));
  EXPECT_THAT(rank_one_hears("", 5, true), HasSubstr("rank 0 is gone"));
  EXPECT_THAT(rank_one_hears(encode({FrameKind::abort, "no luck"}), 5, false),
              HasSubstr("no luck"));
  EXPECT_THAT(rank_one_hears(encode({FrameKind::exchange, ""}), 5, false),
              HasSubstr("unexpected kind"));
  EXPECT_THAT(rank_one_hears(welcome, 0.2, false), HasSubstr("nothing from rank 0"));
  EXPECT_THAT(rank_one_hears(welcome, 5, true), HasSubstr("rank 0 is gone"));
  EXPECT_THAT(rank_one_hears(welcome + encode({FrameKind::exchange, "x"}), 5, false),
              HasSubstr("malformed"));
  EXPECT_THAT(rank_one_hears(welcome + "garbage beyond it", 5, false),
              HasSubstr("no farskip process"));
  const std::string answer = encode({FrameKind::exchange, ""});
  EXPECT_THAT(rank_one_hears(welcome + answer + answer + answer, 5, false),
              ::testing::AnyOf(HasSubstr("nobody asked for"), HasSubstr("malformed")));
  // Longer than memory, within a well-formed heading.
  std::string huge = encode({FrameKind::exchange, ""});
  huge[13] = 1;
  EXPECT_THAT(rank_one_hears(welcome + huge, 5, false), HasSubstr("too long"));
  std::string counts = PayloadWriter().number(1).number(2).number(1ULL << 60).take();
  EXPECT_THAT(rank_one_hears(welcome + encode({FrameKind::exchange, counts}), 5, false),
              HasSubstr("bytes claimed"));
}

TEST(Bootstrap, FactsThatDifferAreNamedOnEveryRank) {
  const auto job = join_job(3);
  const auto errors = errors_of_ranks(3, [&](int rank) {
    Bootstrap& bootstrap = *job[static_cast<size_t>(rank)];
    const Fact same[] = {{"the model", "abc"}, {"the schedule", "overlapped"}};
    agree(bootstrap, same);
    const Fact facts[] = {{"the model", rank == 2 ? "xyz" : "abc"}};
    agree(bootstrap, facts);
  });
  EXPECT_THAT(errors, Each(AllOf(HasSubstr("ranks disagree on the model"),
                                 HasSubstr("abc as on rank 0"), HasSubstr("xyz on rank 2"))));
  EXPECT_THROW(job[0]->barrier(), CommError);
}

TEST(Bootstrap, NumbersOfFactsThatDiffer) {
  const auto job = join_job(2);
  const auto errors = errors_of_ranks(2, [&](int rank) {
    std::vector<Fact> facts = {{"a", "1"}};
    if (rank == 1) facts.push_back({"b", "2"});
    agree(*job[static_cast<size_t>(rank)], facts);
  });
  EXPECT_THAT(errors, Each(HasSubstr("ranks disagree on b")));
}

TEST(Bootstrap, ExchangesThatDiffer) {
  const auto job = join_job(2);
  const auto errors = errors_of_ranks(2, [&](int rank) {
    if (rank == 0) {
      job[0]->barrier();
    } else {
      job[1]->broadcast("x");
    }
  });
  EXPECT_THAT(errors,
              Each(AllOf(HasSubstr("barrier, on rank 0"), HasSubstr("broadcast, on rank 1"))));
}

TEST(Bootstrap, AFailureReachesEveryRankAndStays) {
  for (const size_t culprit : {0, 1, 2}) {
    const auto job = join_job(3);
    std::thread reporter([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      job[culprit]->fail("the sky fell on rank " + std::to_string(culprit));
      job[culprit]->fail("and again");
    });
    const Deadline watch(Seconds(20));
    const auto errors = errors_of_ranks(3, [&](int rank) {
      if (rank != static_cast<int>(culprit)) job[static_cast<size_t>(rank)]->barrier();
    });
    reporter.join();
    EXPECT_LT(watch.elapsed_seconds(), 5);
    for (size_t rank = 0; rank < 3; ++rank) {
      const std::string text = "the sky fell on rank " + std::to_string(culprit);
      EXPECT_TRUE(rank == culprit || errors[rank].find(text) != std::string::npos) << errors[rank];
      EXPECT_EQ(job[rank]->failure(), text);
      EXPECT_THROW(job[rank]->all_gather("x"), CommError);
    }
  }
}

TEST(Bootstrap, GoodbyeIsNoFailureUntilTheRankIsNeeded) {
  auto job = join_job(3);
  job[1].reset();
  const Deadline limit(Seconds(20));
  while (job[2]->left().empty() && !limit.passed()) std::this_thread::yield();
  EXPECT_THAT(job[2]->left(), ElementsAre(1));
  EXPECT_THAT(job[0]->left(), ElementsAre(1));
  EXPECT_EQ(job[0]->failure(), std::nullopt);
  const auto errors = errors_of_ranks(3, [&](int rank) {
    if (rank != 1) job[static_cast<size_t>(rank)]->barrier();
  });
  EXPECT_THAT(errors[0], HasSubstr("rank 1 has said goodbye"));
  EXPECT_THAT(errors[2], HasSubstr("rank 1 has said goodbye"));
}

TEST(Bootstrap, AnExceptionThatEndsARankIsReported) {
  auto job = join_job(2);
  try {
    const std::shared_ptr<Bootstrap> member = std::move(job[1]);
    throw std::runtime_error("a bug");
  } catch (const std::runtime_error&) {
  }
  const Deadline limit(Seconds(20));
  while (!job[0]->failure() && !limit.passed()) std::this_thread::yield();
  EXPECT_THAT(job[0]->failure().value_or(""), HasSubstr("rank 1 stopped with an error"));
}

TEST(Bootstrap, ASlowRankEndsTheExchange) {
  const auto job = join_job(3, 0.3);
  const Deadline watch(Seconds(20));
  const auto errors = errors_of_ranks(3, [&](int rank) {
    if (rank != 1) job[static_cast<size_t>(rank)]->barrier();
  });
  EXPECT_LT(watch.elapsed_seconds(), 5);
  EXPECT_THAT(errors[0], HasSubstr("nothing from rank 1"));
  EXPECT_THAT(errors[2], HasSubstr("nothing from rank 1"));
}

TEST(Frame, InPiecesOfAnySize) {
  const std::string bytes = encode({FrameKind::exchange, "hello"}) + encode({FrameKind::left, ""});
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    FrameParser parser;
    std::vector<Frame> frames;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      parser.feed(std::string_view(bytes).substr(at, piece));
      while (auto frame = parser.next()) frames.push_back(*frame);
    }
    ASSERT_EQ(frames.size(), 2u);
    EXPECT_EQ(frames[0].payload, "hello");
    EXPECT_EQ(frames[1].kind, FrameKind::left);
  }
  EXPECT_THROW(encode({FrameKind::exchange, std::string(largest_payload + 1, 'x')}), CommError);
}

}  // namespace
}  // namespace farskip
