// A build without NCCL: ranks on GPUs talk through copies in the host's memory.
#include "comm/communicator.h"
#include "core/error.h"

namespace smlp {

std::unique_ptr<Communicator> make_nccl(std::unique_ptr<Communicator>, Backend&) {
  throw Error(ExitCode::unavailable,
              "this smlp was built without NCCL; build it with the preset cuda-release where nccl.h and libnccl are "
              "(docs/cuda.md), or set cluster.communicator = \"staged\"");
}

}  // namespace smlp
