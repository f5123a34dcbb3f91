// A run directory with a script for the fake worker, and the supervisor as a process beside the test.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "core/json_lines.h"
#include "core/process.h"
#include "launcher/processes.h"
#include "small_disk.h"

namespace smlp::test {

inline std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

inline bool eventually(const std::function<bool()>& condition, double seconds = 10) {
  for (const double end = monotonic_seconds() + seconds; monotonic_seconds() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return condition();
}

class SupervisedRun : public testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("SMLP_TEST_PROGRAMS");
    if (folder == nullptr) GTEST_SKIP() << "SMLP_TEST_PROGRAMS names the folder of supervise and fake_worker";
    programs_ = folder;
    std::string pattern = testing::TempDir() + "smlp-launcher-XXXXXX";
    run = mkdtemp(pattern.data());
  }
  void TearDown() override {
    // Until none is left that could still write to the folder.
    const bool ended = test::eventually([&] {
      const auto left = processes();
      for (const auto& [pid, command] : left) kill(pid, SIGKILL);
      return left.empty();
    });
    EXPECT_TRUE(ended) << "processes of the run don't end";
    if (supervisor_ > 0) waitpid(supervisor_, nullptr, 0);
    if (HasFailure()) std::cerr << output();
    if (!run.empty()) std::filesystem::remove_all(run);
    std::filesystem::remove(output_file());
  }

  void script(const std::string& text) { std::ofstream(run / "script") << text; }
  pid_t start(const std::vector<std::string>& options = {}) {
    ProcessStart start{.command = {programs_ + "/supervise", run, programs_ + "/fake_worker"}};
    start.command.insert(start.command.end(), options.begin(), options.end());
    for (char** variable = environ; *variable != nullptr; ++variable) start.environment.emplace_back(*variable);
    start.output = output_file();
    return supervisor_ = start_process(start);
  }
  // The supervisor's exit code, 128 + signal; -1 when it has not ended in time.
  int wait(double seconds = 60) {  // where nobody answers for the host's name, mpirun takes 5 s to start
    int status = 0;
    if (!eventually([&] { return waitpid(supervisor_, &status, WNOHANG) == supervisor_; }, seconds)) return -1;
    supervisor_ = 0;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  int supervise(const std::string& text, const std::vector<std::string>& options = {}) {
    script(text);
    start(options);
    return wait();
  }

  // Live processes of this run, by pid: supervise, mpirun, fake_worker.
  std::vector<std::pair<pid_t, std::string>> processes(const std::string& program = "") const {
    std::vector<std::pair<pid_t, std::string>> found;
    if (run.empty()) return found;  // a skipped test has none, and the empty name is in every command line
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      const pid_t pid = std::atoi(entry.path().filename().c_str());
      if (pid <= 0 || pid == getpid()) continue;
      const auto command = command_line(pid);
      if (command.find(run.string()) == std::string::npos || !is_alive(pid)) continue;
      const auto first = std::filesystem::path(command.substr(0, command.find(' '))).filename().string();
      if (program.empty() || first == program) found.emplace_back(pid, command);
    }
    return found;
  }
  bool nothing_lives() const { return processes().empty(); }

  std::vector<nlohmann::json> lines(const std::string& name) const {
    std::vector<nlohmann::json> all;
    read_json_lines(run / name, [&](const nlohmann::json& line) { all.push_back(line); });
    return all;
  }
  std::vector<nlohmann::json> attempts() const { return lines("attempts.jsonl"); }
  int events(const std::string& name) const {
    int count = 0;
    for (const auto& line : lines("events.jsonl")) count += line["event"] == name;
    return count;
  }
  std::string output() const { return contents(output_file()); }
  std::string arguments(int attempt, int rank) const {
    return contents(run / ("arguments-" + std::to_string(attempt) + "-" + std::to_string(rank)));
  }
  // `more` steps more than `lines_before`, and both ranks show their heartbeats.
  bool trains(std::size_t more, std::size_t lines_before = 0) const {
    return lines("metrics.jsonl").size() >= lines_before + more && std::filesystem::exists(run / "heartbeats/rank-0000") &&
           std::filesystem::exists(run / "heartbeats/rank-0001");
  }

  std::filesystem::path run;

 private:
  std::filesystem::path output_file() const { return run.string() + ".output"; }  // of a disk that is not the run's

  std::string programs_;
  pid_t supervisor_ = 0;
};

}  // namespace smlp::test
