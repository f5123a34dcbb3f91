#include "worker/signals.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>

#include "core/error.h"

namespace smlp {

namespace {

volatile std::sig_atomic_t requested = 0;

void request_stop(int) { requested = 1; }

}  // namespace

void install_stop_signals() {
  struct sigaction action = {};
  action.sa_handler = request_stop;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGUSR1, SIGTERM, SIGINT}) sigaction(signal, &action, nullptr);
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
