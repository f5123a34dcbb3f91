#include "launcher/signal_queue.h"

#include <ctime>

namespace smlp {

SignalQueue::SignalQueue() {
  sigemptyset(&taken_);
  for (const int number : {SIGINT, SIGTERM, SIGUSR1, SIGCHLD}) sigaddset(&taken_, number);
  struct sigaction hang_up {};
  sigaction(SIGHUP, nullptr, &hang_up);
  if (hang_up.sa_handler != SIG_IGN) sigaddset(&taken_, SIGHUP);  // nohup ignores it on purpose
  struct sigaction usual {};
  usual.sa_handler = SIG_DFL;
  sigaction(SIGCHLD, &usual, nullptr);  // an inherited "ignore" would let children vanish unreaped
  sigprocmask(SIG_BLOCK, &taken_, nullptr);
}

void hold_back_signals() {
  sigset_t held{};
  sigemptyset(&held);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) sigaddset(&held, number);
  sigprocmask(SIG_BLOCK, &held, nullptr);
}

std::optional<int> SignalQueue::next(double seconds) {
  timespec limit{};
  limit.tv_sec = static_cast<time_t>(seconds);
  limit.tv_nsec = static_cast<long>((seconds - static_cast<double>(limit.tv_sec)) * 1e9);
  const int number = sigtimedwait(&taken_, nullptr, &limit);
  return number > 0 ? std::optional(number) : std::nullopt;
}

}  // namespace smlp
