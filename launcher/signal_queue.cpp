#include "launcher/signal_queue.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <span>

#include "launcher/processes.h"

namespace smlp {

namespace {

constexpr std::array that_ask_to_stop = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};

sigset_t set_of(std::span<const int> signals) {
  sigset_t set{};
  sigemptyset(&set);
  for (const int number : signals) sigaddset(&set, number);
  return set;
}

}  // namespace

bool asks_to_stop(int signal) {
  return std::find(that_ask_to_stop.begin(), that_ask_to_stop.end(), signal) != that_ask_to_stop.end();
}

std::vector<int> signals_to_take() {
  std::vector<int> signals(that_ask_to_stop.begin(), that_ask_to_stop.end());
  if (is_ignored(SIGHUP)) std::erase(signals, SIGHUP);
  return signals;
}

SignalQueue::SignalQueue() : taken_(set_of(signals_to_take())) {
  sigaddset(&taken_, SIGCHLD);
  struct sigaction usual {};
  usual.sa_handler = SIG_DFL;
  sigaction(SIGCHLD, &usual, nullptr);  // an inherited "ignore" would let children vanish unreaped
  sigprocmask(SIG_BLOCK, &taken_, nullptr);
}

void hold_back_signals() {
  const auto held = set_of(that_ask_to_stop);
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
