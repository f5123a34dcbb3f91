// A folder with a small job and its data, and the real `smlp` run in it.
#pragma once

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "data/token_file_writer.h"

namespace smlp::test {

inline std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

struct Answer {
  int code = -1;
  std::string out, err;
};

class CommandLine : public testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("SMLP_BIN") == nullptr || std::getenv("SMLP_TEST_PROGRAMS") == nullptr) {
      GTEST_SKIP() << "SMLP_BIN and SMLP_TEST_PROGRAMS name the folders of smlp and of fake_worker";
    }
    std::string pattern = testing::TempDir() + "smlp-commands-XXXXXX";
    place = mkdtemp(pattern.data());
    write("job.toml",
          "name = \"small\"\n[model]\ncontext = 16\nwidth = 8\nhidden = 16\n[data]\ntokenizer = \"bytes\"\n"
          "train = [\"train\"]\nvalid = [\"valid\"]\n[train]\nsteps = 50\nglobal_batch = 4\nmicro_batch = 2\n");
    write_tokens("train", 200);
    write_tokens("valid", 40);
  }
  void TearDown() override {
    for (const pid_t child : unfinished_) {  // of a test that has failed: smlp takes with it what it has started
      if (waitpid(child, nullptr, WNOHANG) != 0) continue;
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
    }
    if (!place.empty()) std::filesystem::remove_all(place);
  }

  void write(const std::string& name, const std::string& text) { std::ofstream(place / name) << text; }
  void write_tokens(const std::string& prefix, int count, int of_vocabulary = 257) {
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) tokens[static_cast<std::size_t>(i)] = (i * 7) % of_vocabulary;
    TokenFileWriter writer((place / prefix).string(), of_vocabulary);
    writer.append(tokens);
    writer.end_document();
    writer.finish();
  }
  // A worker that says how it was called and shows the job it was given.
  std::string talking_worker(int code) {
    write("worker.sh",
          "#!/bin/sh\necho \"rank ${OMPI_COMM_WORLD_RANK:-alone} threads $OMP_NUM_THREADS: $*\"\n"
          "while [ $# -gt 0 ]; do [ \"$1\" = --job ] && cat \"$2\"; shift; done\nexit " + std::to_string(code) + "\n");
    std::filesystem::permissions(place / "worker.sh", std::filesystem::perms::owner_all);
    return place / "worker.sh";
  }
  static std::string fake_worker() { return std::string(std::getenv("SMLP_TEST_PROGRAMS")) + "/fake_worker"; }

  enum class Rights { own, nobody };  // nobody: where this process is root
  pid_t start(const std::vector<std::string>& arguments, const std::string& worker = "", Rights rights = Rights::own) {
    const pid_t child = fork();
    if (child > 0) unfinished_.insert(child);
    if (child != 0) return child;
    std::vector<std::string> words = {std::string(std::getenv("SMLP_BIN")) + "/smlp"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> pointers;
    for (auto& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    if (!worker.empty()) setenv("SMLP_WORKER", worker.c_str(), 1);
    if (chdir(place.c_str()) != 0) _exit(127);
    dup2(open("/dev/null", O_RDONLY), 0);
    dup2(open("out", O_WRONLY | O_CREAT | O_TRUNC, 0644), 1);
    dup2(open("err", O_WRONLY | O_CREAT | O_TRUNC, 0644), 2);
    const bool give_up = rights == Rights::nobody && geteuid() == 0;
    if (give_up && (setgroups(0, nullptr) != 0 || setgid(65534) != 0 || setuid(65534) != 0)) _exit(127);
    execv(pointers[0], pointers.data());
    _exit(127);
  }
  Answer finish(pid_t child, double seconds = 30) {
    int status = 0;
    for (const double end = monotonic_seconds() + seconds; waitpid(child, &status, WNOHANG) != child;) {
      if (monotonic_seconds() > end) {
        ADD_FAILURE() << "smlp did not end";
        kill(child, SIGKILL);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    unfinished_.erase(child);
    const int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    return {code, contents(place / "out"), contents(place / "err")};
  }
  Answer smlp(const std::vector<std::string>& arguments, const std::string& worker = "") {
    return finish(start(arguments, worker));
  }

  std::filesystem::path place;

 private:
  std::set<pid_t> unfinished_;
};

}  // namespace smlp::test
