// The value-parameterized fixture's cases: one body of tests for every kind of communicator.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace smlp::test {

struct CommCase {
  std::string name;
  std::function<std::unique_ptr<Backend>()> backend;
  std::function<std::unique_ptr<Communicator>(Backend&)> make;
  bool of_the_backend = true;          // views lie in the backend's memory; false: in the host's
  bool alone = false;                  // one rank, whatever mpirun has started
  std::int64_t most = std::int64_t{1} << 40;  // elements of a view: where every few are a message, enough of them do
};

// Of the program: host_cases.cpp, or tests/cuda_emulation/comm_cases.cpp.
std::vector<CommCase> comm_cases();

}  // namespace smlp::test
