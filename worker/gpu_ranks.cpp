#include "worker/gpu_ranks.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <utility>

#include "core/error.h"
#include "core/host_name.h"
#include "worker/texts.h"

namespace smlp {

namespace {

// Why NCCL can't join these ranks; empty: it can.
std::string against_nccl(const std::vector<GpuSeat>& seats) {
  std::map<std::pair<std::string, std::string>, std::size_t> taken;
  for (std::size_t rank = 0; rank < seats.size(); ++rank) {
    const auto& [host, device] = seats[rank];
    if (device.empty()) return fmt::format("rank {} computes on the CPU of {}", rank, host);
    const auto [first, free] = taken.try_emplace({host, device}, rank);
    if (!free) return fmt::format("ranks {} and {} share GPU {} of {}", first->second, rank, device, host);
  }
  return "";
}

}  // namespace

TalkChoice choose_talk(const std::string& wanted, const std::vector<GpuSeat>& seats, bool built_with_nccl) {
  const bool gpus = std::any_of(seats.begin(), seats.end(), [](const GpuSeat& seat) { return !seat.device.empty(); });
  const auto against = against_nccl(seats);
  if (wanted == "nccl") {
    if (!built_with_nccl) {
      throw Error(ExitCode::unavailable,
                  "cluster.communicator = \"nccl\", which this build of smlp has not; choose auto or staged");
    }
    if (!against.empty()) {
      throw Error(ExitCode::unavailable,
                  fmt::format("cluster.communicator = \"nccl\", which needs a GPU for each rank, and {}; give each "
                              "its own (slurm.gpus_per_task = 1, or fewer ranks a host), or choose auto or staged",
                              against));
    }
  }
  if (!gpus) return {Talk::by_host, "ranks talk over MPI"};
  if (wanted == "staged") {
    return {Talk::staged, "ranks talk through copies in the memory of their hosts, as cluster.communicator asks"};
  }
  if (!built_with_nccl || !against.empty()) {
    return {Talk::staged, fmt::format("ranks talk through copies in the memory of their hosts, which is slow: {}",
                                      built_with_nccl ? against : "this build has no NCCL"),
            true};
  }
  return {Talk::by_nccl, "ranks talk by NCCL, each with a GPU of its own"};
}

std::unique_ptr<Communicator> join_gpus(std::unique_ptr<Communicator> host, Backend& backend,
                                        const std::string& wanted, bool built_with_nccl) {
  const auto hosts = all_texts(*host, host_name()), devices = all_texts(*host, backend.device_id());
  std::vector<GpuSeat> seats;
  for (std::size_t rank = 0; rank < hosts.size(); ++rank) seats.push_back({hosts[rank], devices[rank]});
  const auto choice = choose_talk(wanted, seats, built_with_nccl);
  if (host->rank() == 0 && host->size() > 1 && choice.talk != Talk::by_host) {
    spdlog::log(choice.second_best ? spdlog::level::warn : spdlog::level::info, "{}", choice.sentence);
  }
  if (backend.in_host_memory()) return host;
  return choice.talk == Talk::by_nccl ? make_nccl(std::move(host), backend) : make_staged(std::move(host), backend);
}

}  // namespace smlp
