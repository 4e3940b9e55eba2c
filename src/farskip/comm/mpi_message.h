#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "farskip/comm/collective.h"

namespace farskip {

// What the processes of an mpi group tell each other besides tensors.
struct MpiMessage {
  enum class Kind : int64_t {
    hello = 1,   // text: what must be alike (mpi.cpp)
    header = 2,  // numbers: a rank's part in a collective
    failed = 3,  // numbers: {the first collective the sender takes no part in}; text: why
    left = 4,    // the sender's group is gone, all its collectives done
    letter = 5,  // numbers: the sender's end of a message between two ranks
  };
  Kind kind = Kind::hello;
  std::vector<int64_t> numbers;
  std::string text;

  // The bytes on the wire: 64-bit words of this machine's byte order, then the text.
  std::string encode() const;
  // Throws CommError, naming `source`, for bytes that are no message.
  static MpiMessage decode(std::string_view bytes, int source);
};

MpiMessage header_of(const Signature& part, int64_t index);

// A header as received from rank `part.rank` of `size`. Throws CommError for one that is malformed.
struct MpiHeader {
  int64_t index = 0;
  Signature part;
};
MpiHeader read_header(const MpiMessage& message, int source, int size);

}  // namespace farskip
