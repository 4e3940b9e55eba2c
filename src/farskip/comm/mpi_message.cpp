#include "farskip/comm/mpi_message.h"

#include <cstring>

namespace farskip {
namespace {

[[noreturn]] void reject(int source, const std::string& found) {
  throw CommError("a message makes no sense", {.where = "mpi, from rank " + std::to_string(source),
                                               .expected = "a message of this version of farskip",
                                               .found = found});
}

// Takes numbers off the front of a header.
class Reader {
 public:
  Reader(const std::vector<int64_t>& numbers, int source) : numbers_(numbers), source_(source) {}

  int64_t next() {
    if (at_ == numbers_.size()) reject(source_, "a header that ends early");
    return numbers_[at_++];
  }
  int64_t next_below(int64_t bound, const char* what) {
    const int64_t value = next();
    if (value < 0 || value >= bound) reject(source_, std::string(what) + std::to_string(value));
    return value;
  }
  std::vector<int64_t> list() {
    const auto left = static_cast<int64_t>(numbers_.size() - at_);
    std::vector<int64_t> values(static_cast<size_t>(next_below(left, "a list of ")));
    for (int64_t& value : values) value = next();
    return values;
  }

 private:
  const std::vector<int64_t>& numbers_;
  const int source_;
  size_t at_ = 0;
};

void append(std::vector<int64_t>& numbers, const std::vector<int64_t>& list) {
  numbers.push_back(static_cast<int64_t>(list.size()));
  numbers.insert(numbers.end(), list.begin(), list.end());
}

}  // namespace

std::string MpiMessage::encode() const {
  std::vector<int64_t> words = {static_cast<int64_t>(kind)};
  append(words, numbers);
  return std::string(reinterpret_cast<const char*>(words.data()), words.size() * sizeof(int64_t)) +
         text;
}

MpiMessage MpiMessage::decode(std::string_view bytes, int source) {
  const auto words = static_cast<int64_t>(bytes.size() / sizeof(int64_t));
  const auto word = [&](int64_t at) {
    int64_t value = 0;
    std::memcpy(&value, bytes.data() + at * static_cast<int64_t>(sizeof value), sizeof value);
    return value;
  };
  if (words < 2) reject(source, std::to_string(bytes.size()) + " bytes");
  const int64_t kind = word(0), count = word(1);
  if (kind < 1 || kind > static_cast<int64_t>(Kind::letter)) {
    reject(source, "kind " + std::to_string(kind));
  }
  if (count < 0 || count > words - 2) reject(source, std::to_string(count) + " numbers");
  MpiMessage message{.kind = static_cast<Kind>(kind)};
  for (int64_t i = 0; i < count; ++i) message.numbers.push_back(word(2 + i));
  message.text = bytes.substr(static_cast<size_t>(2 + count) * sizeof(int64_t));
  return message;
}

MpiMessage header_of(const Signature& part, int64_t index) {
  const bool letter = is_message(part.kind);
  MpiMessage message{.kind = letter ? MpiMessage::Kind::letter : MpiMessage::Kind::header,
                     .numbers = {index, static_cast<int64_t>(part.kind), part.tag, part.root,
                                 static_cast<int64_t>(part.dtype)}};
  append(message.numbers, part.shape);
  append(message.numbers, part.out_rows);
  append(message.numbers, part.in_rows);
  return message;
}

MpiHeader read_header(const MpiMessage& message, int source, int size) {
  Reader reader(message.numbers, source);
  MpiHeader header{.index = reader.next()};
  Signature& part = header.part;
  const bool letter = message.kind == MpiMessage::Kind::letter;
  const CollectiveKind last = letter ? CollectiveKind::send : CollectiveKind::barrier;
  part.kind =
      static_cast<CollectiveKind>(reader.next_below(static_cast<int64_t>(last) + 1, "collective "));
  part.tag = reader.next();
  part.rank = source;
  part.root = static_cast<int>(reader.next_below(size, "root "));
  part.dtype = static_cast<at::ScalarType>(
      reader.next_below(static_cast<int64_t>(at::ScalarType::NumOptions) + 1, "dtype "));
  part.shape = reader.list();
  part.out_rows = reader.list();
  part.in_rows = reader.list();
  const size_t rows = part.kind == CollectiveKind::all_to_all ? static_cast<size_t>(size) : 0;
  if (part.out_rows.size() != rows || part.in_rows.size() != rows) {
    reject(source, std::to_string(part.in_rows.size()) + " row counts");
  }
  return header;
}

}  // namespace farskip
