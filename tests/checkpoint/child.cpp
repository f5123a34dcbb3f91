#include "tests/checkpoint/child.h"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>

namespace smlp::test {

ChildOutcome in_child(const std::function<std::string(int)>& body,
                      const std::function<void(pid_t)>& meanwhile) {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) throw std::runtime_error("pipe failed");
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    ::close(ends[0]);
    std::string text;
    try {
      text = body(ends[1]);
    } catch (const std::exception& error) {
      text = std::string("exception: ") + error.what();
    }
    if (::write(ends[1], text.data(), text.size()) < 0) ::_exit(99);
    std::exit(0);
  }
  ::close(ends[1]);
  if (meanwhile) meanwhile(child);
  ChildOutcome outcome;
  std::array<char, 4096> part{};
  for (ssize_t n; (n = ::read(ends[0], part.data(), part.size())) > 0;)
    outcome.said.append(part.data(), static_cast<std::size_t>(n));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
  return outcome;
}

}  // namespace smlp::test
