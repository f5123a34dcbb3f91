// How ranks talk whose memory is a GPU's: by NCCL, or through copies in the memory of their hosts.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace smlp {

struct GpuSeat {  // of a rank
  std::string host, device;  // Backend::device_id(): empty on the CPU
};

enum class Talk { by_host, staged, by_nccl };
struct TalkChoice {
  Talk talk;
  std::string sentence;        // for the log
  bool second_best = false;    // than what the machine or the build might give
};

// For all ranks alike. `wanted`: cluster.communicator. Throws Error(unavailable) for what can't be had.
TalkChoice choose_talk(const std::string& wanted, const std::vector<GpuSeat>& seats, bool built_with_nccl);

// Collective; every rank says where it computes, also one on the CPU. `host` stays as it is there.
std::unique_ptr<Communicator> join_gpus(std::unique_ptr<Communicator> host, Backend& backend,
                                        const std::string& wanted, bool built_with_nccl);

}  // namespace smlp
