// How a job of two ranks ends that a program of tests is run as.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <string>

namespace smlp::test {

struct Ending {
  int status;
  double seconds;
  std::string said;
};

inline Ending run_two_ranks(const char* program, const char* way) {
  const auto begin = std::chrono::steady_clock::now();
  const auto command =
      fmt::format("timeout -s KILL 60 {} --allow-run-as-root --oversubscribe --bind-to none -n 2 {} {} 2>&1",
                  SMLP_MPIRUN, program, way);
  FILE* pipe = popen(command.c_str(), "r");
  EXPECT_NE(pipe, nullptr);
  std::string said;
  std::array<char, 256> line{};
  while (std::fgets(line.data(), line.size(), pipe) != nullptr) said += line.data();
  const int status = pclose(pipe);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, spent.count(), said};
}

}  // namespace smlp::test
