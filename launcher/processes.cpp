#include "launcher/processes.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <sstream>
#include <string_view>

#include "core/error.h"
#include "core/files.h"
#include "core/numbers.h"
#include "core/program.h"

namespace smlp {

namespace {

// From /proc/PID/stat; the name before them may hold anything but ends with ')'. 0: it is gone.
pid_t parent_of(pid_t pid) {
  const auto text = read_if_there(fmt::format("/proc/{}/stat", pid));
  const auto end = text.rfind(')');
  char state = 0;
  pid_t parent = 0;
  if (end != std::string::npos) std::istringstream(text.substr(end + 1)) >> state >> parent;
  return parent;
}

// Between fork and exec: only calls that are safe there. Tells the parent errno through `failure` and ends.
[[noreturn]] void become(char** command, char** environment, int output, const ProcessStart& start, pid_t parent,
                         int failure) {
  if (start.own_group) setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  sigset_t blocked;
  sigemptyset(&blocked);
  if (start.deaf_to_term) sigaddset(&blocked, SIGTERM);
  for (const int number : {SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGCHLD, SIGUSR1}) signal(number, SIG_DFL);
  if (is_ignored(SIGHUP)) sigaddset(&blocked, SIGHUP);  // mpirun takes one that is ignored
  if (start.silent_input) {
    const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null >= 0) dup2(null, 0);
  }
  if (output >= 0) {
    dup2(output, 1);
    dup2(output, 2);
  }
  if (start.errors >= 0) dup2(start.errors, 2);
  sigprocmask(SIG_SETMASK, &blocked, nullptr);
  execvpe(command[0], command, environment);
  const int reason = errno;
  [[maybe_unused]] const auto told = write(failure, &reason, sizeof reason);
  _exit(127);
}

// What the child said before it ended; 0: it has become its command, and said nothing.
int told_through(int pipe) {
  int reason = 0;
  ssize_t bytes = 0;
  while ((bytes = read(pipe, &reason, sizeof reason)) < 0 && errno == EINTR) {
  }
  return bytes == sizeof reason ? reason : 0;
}

// What passes: too many processes or open files, no memory, a program that is just being written.
bool is_of_the_moment(int reason) {
  return reason == EAGAIN || reason == ENOMEM || reason == EMFILE || reason == ENFILE || reason == ETXTBSY;
}

Error not_started(const std::string& program, const std::string& why, int reason) {
  const bool passes = is_of_the_moment(reason);
  return {passes ? ExitCode::fault : ExitCode::unavailable,
          fmt::format("{} could not be started: {}{}{}", program, why, std::strerror(reason),
                      program == "mpirun" && !passes ? "; install Open MPI (on Debian: apt install openmpi-bin)" : "")};
}

}  // namespace

bool is_ignored(int number) {
  struct sigaction action {};
  sigaction(number, nullptr, &action);
  return action.sa_handler == SIG_IGN;
}

std::string command_line(pid_t pid) {
  auto text = read_if_there(fmt::format("/proc/{}/cmdline", pid));
  for (auto& c : text) {
    if (c == '\0') c = ' ';
  }
  return text;
}

bool is_of_run(pid_t pid, const std::filesystem::path& root) {
  const auto words = read_if_there(fmt::format("/proc/{}/cmdline", pid));  // each ends with a zero
  constexpr std::string_view option("\0--run-dir\0", 11);
  return words.find(std::string(option) + root.string() + '\0') != std::string::npos;
}

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  for (const auto& entry : entries_of("/proc")) {
    const auto number = parse_whole_number(entry.filename().string());
    if (!number) continue;
    const auto pid = static_cast<pid_t>(*number);
    if (parent_of(pid) == parent) children.push_back(pid);
  }
  return children;
}

void adopt_orphans() { prctl(PR_SET_CHILD_SUBREAPER, 1); }

std::string signal_text(int number) {
  const char* name = sigabbrev_np(number);
  return name ? fmt::format("signal {} (SIG{})", number, name) : fmt::format("signal {}", number);
}

pid_t start_process(const ProcessStart& start) {
  auto words = start.command;
  auto variables = start.environment;
  auto command = exec_pointers(words), environment = exec_pointers(variables);
  int output = -1;
  if (!start.output.empty()) {
    output = open(start.output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (output < 0) {
      throw Error(ExitCode::io_failed,
                  fmt::format("opening {} failed: {}", start.output.string(), std::strerror(errno)));
    }
  }
  std::array<int, 2> failure{};
  if (pipe2(failure.data(), O_CLOEXEC) != 0) {
    const int reason = errno;
    if (output >= 0) close(output);
    throw not_started(start.command.front(), "no pipe: ", reason);
  }
  const pid_t parent = getpid(), child = fork();
  if (child == 0) {
    become(command.data(), environment.data(), output, start, parent, failure[1]);
  }
  close(failure[1]);
  if (output >= 0) close(output);
  int reason = child < 0 ? errno : 0;
  if (child > 0) reason = told_through(failure[0]);
  close(failure[0]);
  if (reason != 0) {
    while (child > 0 && waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
    throw not_started(start.command.front(), "", reason);
  }
  return child;
}

}  // namespace smlp
