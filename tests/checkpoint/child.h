// A part of a test in a process of its own, which may be killed, crash, or live under limits.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

namespace smlp::test {

struct ChildOutcome {
  int exit_code = -1;  // -1: it was killed
  int signal = 0;
  std::string said;  // what `body` returned or wrote to the descriptor
};

// Runs body(descriptor) in a fork; its return value is sent back, and the child ends by exit(0), so that
// destructors and libraries' clean-up run too.
ChildOutcome in_child(const std::function<std::string(int descriptor)>& body,
                      const std::function<void(pid_t)>& meanwhile = {});

}  // namespace smlp::test
