#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "commands/commands.h"
#include "commands/plain_text.h"
#include "commands/print_json.h"
#include "core/features.h"
#include "core/error.h"
#include "core/host_name.h"
#include "core/program.h"
#include "core/quantities.h"
#include "core/tell.h"
#include "core/version.h"
#include "launcher/mpi_launch.h"
#include "launcher/preflight.h"
#include "launcher/processes.h"

namespace smlp {

namespace {

constexpr double patience_seconds = 15;
constexpr std::size_t widest_version = 100;

struct Finding {
  std::string name, value, remedy;  // remedy: empty when all is well
  bool needed = false;              // for a run here
};

// The first line that a program prints of its version, or why it prints none.
std::string version_of(const std::string& program) {
  const auto answer = run_program({program, "--version"}, own_environment(), patience_seconds);
  if (!answer.failure.empty()) return answer.failure;
  const auto& words = answer.out.empty() ? answer.err : answer.out;
  return plain_line(words.substr(0, words.find('\n')), widest_version);
}

// Of the first processor in /proc/cpuinfo.
std::string cpu_fact(const std::string& name) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name)) return line.substr(std::min(line.find(':') + 2, line.size()));
  }
  return "";
}

std::string instruction_sets() {
  const auto flags = " " + cpu_fact("flags") + " ";
  std::string found;
  for (const char* set : {"avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16"}) {
    if (flags.find(fmt::format(" {} ", set)) != std::string::npos) found += fmt::format("{}{}", found.empty() ? "" : " ", set);
  }
  return found.empty() ? "none of those that smlp looks for" : found;
}

std::string memory_text() {
  const auto pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
  return size_text(std::int64_t{pages} * size);
}

Finding shared_memory() {
  struct statvfs facts {};
  if (statvfs("/dev/shm", &facts) != 0) return {"shared memory", "no /dev/shm", "ranks will exchange through files"};
  const auto bytes = static_cast<std::int64_t>(facts.f_bavail * facts.f_frsize);
  return {"shared memory", fmt::format("{} free in /dev/shm", size_text(bytes)),
          bytes < 64'000'000 ? "ranks exchange through it: give it 64 MB at least" : ""};
}

Finding program(const std::string& name, const std::string& remedy, bool needed) {
  const auto path = path_of_program(name);
  if (path.empty()) return {name, "not found", remedy, needed};
  return {name, fmt::format("{} ({})", path, version_of(path)), ""};
}

// What this node would answer to a launcher, for a run directory here.
void add_preflight(std::vector<Finding>& findings, const std::filesystem::path& worker) {
  const auto answer = run_program({worker, "preflight", "--run-dir", "."}, own_environment(), patience_seconds);
  const auto [node, failure] = parse_node_report(answer.out);
  if (!node) {
    findings.push_back({"preflight", "none", answer.code < 0 ? answer.failure : failure});
    return;
  }
  findings.push_back({"products", fmt::format("{:.3g} GFLOP/s on one core ({})", node->product_flops * 1e-9, node->isa), ""});
  const auto& folder = node->run_dir;
  findings.push_back({"this folder", fmt::format("{} free, a small file is safe on disk after {:.0f} ms",
                                                 size_text(folder.free_bytes), folder.sync_seconds * 1e3),
                      folder.failure.empty() ? "" : fmt::format("it {}", folder.failure)});
}

std::vector<Finding> examine() {
  std::vector<Finding> findings;
  findings.push_back({"smlp", fmt::format("{} ({})", version(), compiler()), ""});
  try {
    const auto worker = find_worker();
    findings.push_back({"smlp-worker", worker.string(), ""});
    add_preflight(findings, worker);
  } catch (const Error& error) {
    findings.push_back({"smlp-worker", "not found", error.what(), true});
  }
  const auto cores = count_cores();
  findings.push_back({"processor", cpu_fact("model name"), ""});
  findings.push_back({"cores", fmt::format("{} ({} hardware threads) for this process", cores.cores, cores.threads), ""});
  findings.push_back({"instruction sets", instruction_sets(), ""});
  findings.push_back({"memory", memory_text(), ""});
  findings.push_back(shared_memory());
  if (const auto without = left_out(); !without.empty()) findings.push_back({"built without", without, ""});
  if (built_with_mpi()) findings.push_back(program("mpirun", "install Open MPI (on Debian: apt install openmpi-bin)", true));
  findings.push_back(program("prometheus", "only to watch runs: apt install prometheus", false));
  const bool gpu = std::filesystem::exists("/dev/nvidia0");
  const auto* one = built_with_cuda() ? "there is one" : "there is one, but this build computes on CPUs alone";
  findings.push_back({"GPU", gpu ? one : "none", ""});
  return findings;
}

int report(bool json) {
  const auto findings = examine();
  bool sound = true;
  auto document = nlohmann::ordered_json::object();
  for (const auto& finding : findings) {
    sound = sound && (finding.remedy.empty() || !finding.needed);
    document["findings"].push_back({{"name", finding.name}, {"value", finding.value}, {"remedy", finding.remedy},
                                    {"needed", finding.needed}});
    if (json) continue;
    fmt::print("{:<17} {}{}\n", finding.name, finding.value, finding.remedy.empty() ? "" : ": " + finding.remedy);
  }
  document["sound"] = sound;
  document["host"] = host_name();
  if (json) print_json(document);
  if (!sound) tell("something is missing that a run here needs");
  return static_cast<int>(sound ? ExitCode::done : ExitCode::unavailable);
}

}  // namespace

void add_doctor_command(CLI::App& app, int& exit_code) {
  const auto json = std::make_shared<bool>(false);
  auto* command = app.add_subcommand("doctor", "what this machine has, and what a run here would miss");
  command->add_flag("--json", *json, "one JSON document");
  command->footer("Example:\n  smlp doctor");
  command->callback([json, &exit_code] { exit_code = report(*json); });
}

}  // namespace smlp
