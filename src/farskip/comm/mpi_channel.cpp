#include "farskip/comm/mpi_channel.h"

namespace farskip {

MpiChannel::MpiChannel(MPI_Comm communicator, int tag) : communicator_(communicator), tag_(tag) {
  check_mpi(MPI_Comm_rank(communicator, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(communicator, &size_), "MPI_Comm_size");
}

bool MpiChannel::done(Letter& letter) {
  int flag = 0;
  check_mpi(MPI_Test(&letter.request, &flag, MPI_STATUS_IGNORE), "MPI_Test");
  return flag != 0;
}

void MpiChannel::send(int to, const MpiMessage& message) {
  auto letter = std::make_shared<Letter>();
  letter->peer = to;
  letter->bytes = message.encode();
  check_mpi(MPI_Isend(letter->bytes.data(), static_cast<int>(letter->bytes.size()), MPI_BYTE, to,
                      tag_, communicator_, &letter->request),
            "MPI_Isend");
  outgoing_.push_back(std::move(letter));
}

void MpiChannel::send_to_all(const MpiMessage& message) {
  for (int step = 1; step < size_; ++step) send((rank_ + step) % size_, message);
}

bool MpiChannel::sent() {
  std::erase_if(outgoing_, [](const auto& letter) { return done(*letter); });
  return outgoing_.empty();
}

void MpiChannel::accept_arrivals() {
  while (true) {
    int found = 0, count = 0;
    MPI_Message message;
    MPI_Status status;
    check_mpi(MPI_Improbe(MPI_ANY_SOURCE, tag_, communicator_, &found, &message, &status),
              "MPI_Improbe");
    if (!found) return;
    check_mpi(MPI_Get_count(&status, MPI_BYTE, &count), "MPI_Get_count");
    auto letter = std::make_shared<Letter>();
    letter->peer = status.MPI_SOURCE;
    letter->bytes.resize(static_cast<size_t>(count));
    // Not MPI_Mrecv, which would wait for the rest of a long message.
    check_mpi(MPI_Imrecv(letter->bytes.data(), count, MPI_BYTE, &message, &letter->request),
              "MPI_Imrecv");
    incoming_.push_back(std::move(letter));
  }
}

std::optional<MpiChannel::Received> MpiChannel::receive() {
  accept_arrivals();
  std::vector<bool> behind(static_cast<size_t>(size_));  // ranks with an unfinished earlier letter
  for (auto place = incoming_.begin(); place != incoming_.end(); ++place) {
    Letter& letter = **place;
    const auto peer = static_cast<size_t>(letter.peer);
    if (behind[peer] || !done(letter)) {
      behind[peer] = true;
      continue;
    }
    Received received{letter.peer, MpiMessage::decode(letter.bytes, letter.peer)};
    incoming_.erase(place);
    return received;
  }
  return std::nullopt;
}

void MpiChannel::close(MpiJob& job) noexcept {
  for (Letters* letters : {&outgoing_, &incoming_}) {
    for (const auto& letter : *letters) job.keep(letter);
    letters->clear();
  }
}

}  // namespace farskip
