#include "core/cores.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/numbers.h"

namespace smlp {

namespace {

int topology(int cpu, const char* what) {
  std::ifstream file(fmt::format("/sys/devices/system/cpu/cpu{}/topology/{}", cpu, what));
  int value = -1;
  file >> value;
  return file ? value : -1;
}

}  // namespace

std::vector<Core> cores_here() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return {};
  std::map<std::pair<int, int>, Core> by_place;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(static_cast<std::size_t>(cpu), &allowed)) continue;
    const int package = topology(cpu, "physical_package_id"), core = topology(cpu, "core_id");
    const bool known = package >= 0 && core >= 0;
    by_place[known ? std::pair(package, core) : std::pair(CPU_SETSIZE, cpu)].push_back(cpu);
  }
  std::vector<Core> cores;
  for (auto& [place, core] : by_place) cores.push_back(std::move(core));
  return cores;
}

std::int64_t threads_here() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  return sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? std::max(1, CPU_COUNT(&allowed)) : 1;
}

bool may_bind(const CoreDemand& demand, std::int64_t cores, bool ours_alone) {
  const auto wanted = demand.ranks * demand.each;
  return wanted <= cores && (ours_alone || 2 * wanted > cores);
}

std::vector<int> cpus_of_rank(const std::vector<Core>& cores, const CoreDemand& demand, std::int64_t local_rank) {
  const auto there = static_cast<std::int64_t>(cores.size());
  if (demand.ranks * demand.each > there || local_rank < 0 || local_rank >= demand.ranks) return {};
  std::vector<int> cpus;
  const auto first = there / demand.ranks * local_rank;
  for (auto core = first; core < first + demand.each; ++core) {
    const auto& threads = cores[static_cast<std::size_t>(core)];
    cpus.insert(cpus.end(), threads.begin(), threads.end());
  }
  std::sort(cpus.begin(), cpus.end());
  return cpus;
}

std::string cpu_list(const std::vector<int>& cpus) {
  std::string text;
  for (std::size_t first = 0, last = 0; first < cpus.size(); first = last + 1) {
    last = first;
    while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ",", cpus[first]);
    if (last > first) text += fmt::format("-{}", cpus[last]);
  }
  return text;
}

void bind_to(const std::vector<int>& cpus) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  for (const int cpu : cpus) CPU_SET(static_cast<std::size_t>(cpu), &mask);
  if (sched_setaffinity(0, sizeof mask, &mask) != 0) {
    throw Error(ExitCode::unavailable, fmt::format("this process can't be bound to processors {}: {}", cpu_list(cpus),
                                                   std::strerror(errno)));
  }
  // Libraries may have started threads before main().
  for (const auto& thread : entries_of("/proc/self/task")) {
    const auto id = parse_whole_number(thread.filename().string());
    if (id) sched_setaffinity(static_cast<pid_t>(*id), sizeof mask, &mask);
  }
}

}  // namespace smlp
