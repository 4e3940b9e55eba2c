#include "farskip/comm/two_way.h"

#include <utility>

#include "farskip/comm/collective.h"

namespace farskip {
namespace {

class TwoWayGroup final : public Group {
 public:
  TwoWayGroup(std::unique_ptr<Group> collectives, std::unique_ptr<Group> up,
              std::unique_ptr<Group> down)
      : collectives_(std::move(collectives)), up_(std::move(up)), down_(std::move(down)) {}

  int rank() const override { return collectives_->rank(); }
  int size() const override { return collectives_->size(); }
  at::Device device() const override { return collectives_->device(); }
  c10::Stream stream() const override { return collectives_->stream(); }
  void abort(const CommError& error) noexcept override {
    for (Group* group : {collectives_.get(), up_.get(), down_.get()}) group->abort(error);
  }
  Traffic traffic() const override {
    Traffic sum = collectives_->traffic();
    sum.add(up_->traffic());
    sum.add(down_->traffic());
    return sum;
  }
  std::string describe() const override { return collectives_->describe() + ", messages two-way"; }

 private:
  Work post(Collective collective) override {
    if (!is_message(collective.kind)) return post_on(*collectives_, std::move(collective));
    const bool sends = collective.kind == CollectiveKind::send;
    Group& way = sends == (collective.root > collective.rank) ? *up_ : *down_;
    // Memory for what is received is this group's stream's, which may still be using it.
    if (!sends) Event::record(stream()).block(way.stream());
    return post_on(way, std::move(collective));
  }

  const std::unique_ptr<Group> collectives_, up_, down_;
};

}  // namespace

std::unique_ptr<Group> make_two_way(std::unique_ptr<Group> collectives, std::unique_ptr<Group> up,
                                    std::unique_ptr<Group> down) {
  for (const Group* group : {up.get(), down.get()}) {
    const bool alike = group->rank() == collectives->rank() && group->size() == collectives->size();
    if (!alike) {
      throw UsageError("groups of different ranks",
                       {.where = "two-way", .found = std::to_string(group->size()) + " ranks"});
    }
  }
  return std::make_unique<TwoWayGroup>(std::move(collectives), std::move(up), std::move(down));
}

}  // namespace farskip
