#include "farskip/comm/mpi.h"

namespace farskip {
namespace {

[[noreturn]] void refuse() {
  throw UnsupportedError("this build of farskip is without MPI",
                         {.where = "transport mpi",
                          .hint = "install libopenmpi-dev and openmpi-bin, then configure again "
                                  "with -DFARSKIP_MPI=ON"});
}

}  // namespace

class MpiJob {};

bool mpi_is_available() { return false; }
std::string mpi_version() { return {}; }

MpiProcess::MpiProcess(std::chrono::duration<double>) { refuse(); }
MpiProcess::~MpiProcess() = default;
int MpiProcess::rank() const { refuse(); }
int MpiProcess::size() const { refuse(); }
void MpiProcess::fail_with(int) { refuse(); }

std::unique_ptr<Group> make_mpi_group(const MpiProcess&, const MpiOptions&) { refuse(); }

}  // namespace farskip
