#include "launcher/node_probe.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "slurm/program.h"

namespace smlp {

std::string closing_line(const std::string& text) {
  const auto end = text.find_last_not_of("\r\n");
  if (end == std::string::npos) return "";
  const auto start = text.rfind('\n', end);
  return text.substr(start == std::string::npos ? 0 : start + 1, end - (start == std::string::npos ? -1 : start));
}

namespace {

void probe(ProbeAnswer& answer, const std::filesystem::path& worker, const RunDirectory& run, double seconds) {
  std::vector<std::string> command = {"srun", "--overlap", "--mpi=none", "--cpu-bind=none", "--nodes=1", "--ntasks=1",
                                      "--input=none", "--nodelist=" + answer.node, fmt::format("--immediate={:.0f}", seconds),
                                      worker.string(), "preflight", "--run-dir", run.root.string()};
  std::error_code unknown;
  if (std::filesystem::exists(run.job(), unknown)) {
    command.insert(command.end(), {"--job", run.job().string()});
  } else {
    command.push_back("--made-later");  // only a plan: the run has not begun
  }
  const auto reply = run_program(command, own_environment(), seconds);
  answer.received =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  answer.line = closing_line(reply.out);
  if (reply.code == 0 && !answer.line.empty()) return;
  const auto words = closing_line(reply.err);
  answer.failure = reply.code < 0 ? fmt::format("it did not answer within {:.0f} s", seconds)
                   : words.empty() ? fmt::format("the probe ended with exit code {}", reply.code)
                                   : words;
}

}  // namespace

std::vector<ProbeAnswer> probe_nodes(const std::vector<std::string>& nodes, const std::filesystem::path& worker,
                                     const RunDirectory& run, double seconds) {
  std::vector<ProbeAnswer> answers;
  for (const auto& node : nodes) answers.push_back({.node = node, .line = "", .failure = "", .received = 0});
  std::vector<std::jthread> threads;
  for (auto& answer : answers) threads.emplace_back([&] { probe(answer, worker, run, seconds); });
  threads.clear();  // joins
  return answers;
}

}  // namespace smlp
