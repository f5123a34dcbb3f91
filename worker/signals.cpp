#include "worker/signals.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>

#include "core/error.h"

namespace smlp {

namespace {

volatile std::sig_atomic_t requested = 0;

void request_stop(int) { requested = 1; }

constexpr std::size_t stack_bytes = 256 << 10;  // a frame with wide vector registers, and unwinding, fit many times
alignas(64) std::array<std::byte, stack_bytes> signal_stack;

}  // namespace

void handle_signal(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, nullptr);
}

void install_stop_signals() {
  stack_t stack = {};
  stack.ss_sp = signal_stack.data();
  stack.ss_size = signal_stack.size();
  sigaltstack(&stack, nullptr);
  for (const int signal : {SIGUSR1, SIGTERM, SIGINT}) handle_signal(signal, request_stop);
}

bool stop_requested() noexcept { return requested != 0; }

void die_with_parent() {
  const pid_t parent = getppid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) {
    throw Error(ExitCode::fault, "the process that started this worker is gone");
  }
}

}  // namespace smlp
