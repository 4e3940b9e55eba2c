#include "farskip/comm/bootstrap.h"

#include "farskip/base/error.h"
#include "farskip/comm/control_links.h"
#include "farskip/comm/reception.h"
#include "farskip/version.h"

namespace farskip {
namespace {

enum class Exchange : uint64_t { broadcast = 1, all_gather, barrier };

std::string to_string(Exchange exchange) {
  switch (exchange) {
    case Exchange::broadcast:
      return "broadcast";
    case Exchange::all_gather:
      return "all_gather";
    case Exchange::barrier:
      return "barrier";
  }
  return "unknown exchange";
}

std::string name(int rank) { return "rank " + std::to_string(rank); }

class SocketBootstrap final : public Bootstrap {
 public:
  SocketBootstrap(const LaunchPlace& place, std::chrono::duration<double> deadline,
                  std::vector<ControlLinks::Connection> connections)
      : rank_(place.rank),
        size_(place.size),
        deadline_(deadline),
        links_(place.rank, std::move(connections)) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  std::string broadcast(std::string_view bytes) override {
    return exchange(Exchange::broadcast, rank_ == 0 ? bytes : std::string_view())[0];
  }
  std::vector<std::string> all_gather(std::string_view bytes) override {
    return exchange(Exchange::all_gather, bytes);
  }
  void barrier() override { exchange(Exchange::barrier, {}); }

  void fail(const std::string& reason) noexcept override { links_.fail(reason); }
  std::optional<std::string> failure() const override { return links_.failure(); }
  std::vector<int> left() const override { return links_.left(); }

 private:
  std::vector<std::string> exchange(Exchange kind, std::string_view bytes);
  std::vector<std::string> collect(Exchange kind, std::string_view bytes);
  std::vector<std::string> contribute(Exchange kind, std::string_view bytes);
  std::string receive(Exchange kind, int peer, const Deadline& deadline);
  void check_heading(Exchange kind, int peer, PayloadReader& reader) const;

  const int rank_, size_;
  const std::chrono::duration<double> deadline_;
  uint64_t sequence_ = 0;  // exchanges so far
  ControlLinks links_;
};

std::vector<std::string> SocketBootstrap::exchange(Exchange kind, std::string_view bytes) {
  ++sequence_;
  try {
    return rank_ == 0 ? collect(kind, bytes) : contribute(kind, bytes);
  } catch (const CommError& error) {
    links_.fail(error.what());
    throw;
  }
}

std::vector<std::string> SocketBootstrap::collect(Exchange kind, std::string_view bytes) {
  const Deadline deadline(deadline_);
  std::vector<std::string> parts{std::string(bytes)};
  for (int peer = 1; peer < size_; ++peer) {
    const std::string payload = receive(kind, peer, deadline);
    PayloadReader reader(payload);
    check_heading(kind, peer, reader);
    parts.push_back(reader.text());
    reader.finish();
  }
  PayloadWriter answer;
  answer.number(sequence_).number(static_cast<uint64_t>(kind));
  for (const std::string& part : parts) answer.text(part);
  const std::string payload = answer.take();
  for (int peer = 1; peer < size_; ++peer) links_.send(peer, payload);
  return parts;
}

std::vector<std::string> SocketBootstrap::contribute(Exchange kind, std::string_view bytes) {
  // Rank 0 knows who stays away: it speaks first.
  const Deadline deadline(deadline_ + std::min(deadline_, std::chrono::duration<double>(1)));
  PayloadWriter part;
  part.number(sequence_).number(static_cast<uint64_t>(kind)).text(bytes);
  links_.send(0, part.take());
  const std::string payload = receive(kind, 0, deadline);
  PayloadReader reader(payload);
  check_heading(kind, 0, reader);
  std::vector<std::string> parts;
  for (int peer = 0; peer < size_; ++peer) parts.push_back(reader.text());
  reader.finish();
  return parts;
}

std::string SocketBootstrap::receive(Exchange kind, int peer, const Deadline& deadline) {
  std::optional<std::string> payload = links_.receive(peer, deadline);
  if (payload) return std::move(*payload);
  throw CommError("a rank stayed away",
                  {.where = "bootstrap " + to_string(kind) + ", " + name(rank_),
                   .expected = "an answer within " + std::to_string(deadline.seconds()) + " s",
                   .found = "nothing from " + name(peer) + " for " +
                            std::to_string(deadline.elapsed_seconds()) + " s"});
}

void SocketBootstrap::check_heading(Exchange kind, int peer, PayloadReader& reader) const {
  const uint64_t sequence = reader.number();
  const auto found = static_cast<Exchange>(reader.number());
  if (sequence == sequence_ && found == kind) return;
  const auto describe = [](uint64_t number, Exchange exchange, int rank) {
    return "exchange " + std::to_string(number) + ", " + to_string(exchange) + ", on " + name(rank);
  };
  throw CommError("ranks disagree on the exchange",
                  {.where = "bootstrap",
                   .expected = describe(sequence_, kind, rank_),
                   .found = describe(sequence, found, peer),
                   .hint = "all ranks must take part in the same exchanges in the same order"});
}

std::vector<Fact> read_facts(const std::string& payload) {
  PayloadReader reader(payload);
  std::vector<Fact> facts;
  for (uint64_t left = reader.number(); left > 0; --left) {
    std::string fact = reader.text();
    facts.push_back({std::move(fact), reader.text()});
  }
  reader.finish();
  return facts;
}

std::optional<CommError> find_difference(const std::vector<Fact>& first,
                                         const std::vector<Fact>& other, int rank) {
  for (size_t i = 0; i < std::max(first.size(), other.size()); ++i) {
    const auto show = [&](const std::vector<Fact>& facts) {
      return i < facts.size() ? facts[i].name + " " + facts[i].value : std::string("nothing");
    };
    const bool same = i < first.size() && i < other.size() && first[i].name == other[i].name &&
                      first[i].value == other[i].value;
    if (same) continue;
    return CommError("ranks disagree on " + (i < first.size() ? first[i] : other[i]).name,
                     {.where = name(rank),
                      .expected = show(first) + " as on rank 0",
                      .found = show(other) + " on " + name(rank),
                      .hint = "start every rank with the same program, files and options"});
  }
  return std::nullopt;
}

}  // namespace

void agree(Bootstrap& bootstrap, std::span<const Fact> facts) {
  PayloadWriter writer;
  writer.number(facts.size());
  for (const Fact& fact : facts) writer.text(fact.name).text(fact.value);
  const std::vector<std::string> all = bootstrap.all_gather(writer.take());
  const std::vector<Fact> first = read_facts(all[0]);
  for (size_t rank = 1; rank < all.size(); ++rank) {
    const auto error = find_difference(first, read_facts(all[rank]), static_cast<int>(rank));
    if (!error) continue;
    bootstrap.fail(error->what());
    throw *error;
  }
}

std::unique_ptr<Bootstrap> join_by_sockets(const LaunchPlace& place, BootstrapOptions options) {
  if (place.size < 1 || place.rank < 0 || place.rank >= place.size || place.port < 0 ||
      place.port > 65535 || !(options.deadline.count() > 0) || options.deadline.count() >= 1e8) {
    throw UsageError(
        "no such place in a job",
        {.expected = "a rank below the number of ranks, a port up to 65535, a positive "
                     "deadline below 1e8 s",
         .found = name(place.rank) + " of " + std::to_string(place.size) + ", port " +
                  std::to_string(place.port) + ", deadline " +
                  std::to_string(options.deadline.count()) + " s"});
  }
  auto bootstrap =
      std::make_unique<SocketBootstrap>(place, options.deadline, connect_ranks(place, options));
  const Fact facts[] = {{"the farskip version", std::string(version)}};
  agree(*bootstrap, facts);
  return bootstrap;
}

}  // namespace farskip
