#include "launcher/node_probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <system_error>
#include <thread>

#include "core/program.h"
#include "slurm/steps.h"

namespace smlp {

std::string closing_line(const std::string& text) {
  const auto end = text.find_last_not_of("\r\n");
  if (end == std::string::npos) return "";
  const auto start = text.rfind('\n', end);
  return text.substr(start == std::string::npos ? 0 : start + 1, end - (start == std::string::npos ? -1 : start));
}

namespace {

constexpr std::size_t most_at_once = 64;  // each a process, and four descriptors of ours

void probe(ProbeAnswer& answer, const std::filesystem::path& worker, const RunDirectory& run,
           const std::vector<std::string>& environment, double seconds) {
  std::vector<std::string> command = {"srun", "--overlap", "--mpi=none", "--cpu-bind=none", "--nodes=1", "--ntasks=1",
                                      "--input=none", "--job-name=" + step_name_of(run), "--nodelist=" + answer.node,
                                      fmt::format("--immediate={:.0f}", seconds), worker.string(), "preflight",
                                      "--run-dir", run.root.string()};
  std::error_code unknown;
  if (std::filesystem::exists(run.job(), unknown)) {
    command.insert(command.end(), {"--job", run.job().string()});
  } else {
    command.push_back("--made-later");  // only a plan: the run has not begun
  }
  const auto reply = run_program(command, environment, seconds);
  answer.received =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  answer.line = closing_line(reply.out);
  if (reply.code == 0 && !answer.line.empty()) return;
  answer.silent = reply.code < 0;
  const auto words = closing_line(reply.err);
  answer.failure = reply.code < 0 ? reply.failure
                   : words.empty() ? fmt::format("the probe ended with exit code {}", reply.code)
                                   : words;
}

}  // namespace

std::vector<ProbeAnswer> probe_nodes(const std::vector<std::string>& nodes, const std::filesystem::path& worker,
                                     const RunDirectory& run, const std::vector<std::string>& environment, double seconds) {
  std::vector<ProbeAnswer> answers;
  for (const auto& node : nodes) answers.push_back({.node = node, .line = "", .failure = ""});
  std::atomic<std::size_t> next = 0;
  const auto probe_in_turn = [&] {
    for (auto i = next++; i < answers.size(); i = next++) probe(answers[i], worker, run, environment, seconds);
  };
  std::vector<std::jthread> helpers;
  try {
    while (helpers.size() + 1 < std::min(answers.size(), most_at_once)) helpers.emplace_back(probe_in_turn);
  } catch (const std::system_error&) {
    // No more threads are to be had: those that are there take longer.
  }
  probe_in_turn();
  helpers.clear();  // joins
  return answers;
}

}  // namespace smlp
