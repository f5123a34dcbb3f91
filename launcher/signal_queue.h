// SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGCHLD as a queue: blocked from now on and taken one by one, so that nothing ever
// runs in a signal handler. On the main thread, before other threads start. They stay blocked: one that comes after the
// last look would else kill a launcher that has saved, and its exit code would tell of a failure.
#pragma once

#include <csignal>
#include <optional>
#include <vector>

namespace smlp {

class SignalQueue {
 public:
  SignalQueue();
  SignalQueue(const SignalQueue&) = delete;
  SignalQueue& operator=(const SignalQueue&) = delete;

  // The next signal, waiting up to `seconds` for one.
  std::optional<int> next(double seconds);

 private:
  sigset_t taken_{};
};

// Those that ask to stop wait for a queue that is made later, be it after a fork or an exec.
void hold_back_signals();

bool asks_to_stop(int signal);
// Those for a process to take: without one that it was told to ignore, as nohup does to SIGHUP.
std::vector<int> signals_to_take();

}  // namespace smlp
