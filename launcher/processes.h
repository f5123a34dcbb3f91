// The processes of an attempt as the kernel knows them: found, ended, reaped. Linux (/proc, prctl).
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace smlp {

std::string command_line(pid_t pid);          // words joined by blanks; empty when it is gone
// Whether it was started with `--run-dir ROOT`, to the letter, as launchers, mpirun and ranks of a run are: a process that
// has the number of one that is gone is not to be taken for it.
bool is_of_run(pid_t pid, const std::filesystem::path& root);
std::vector<pid_t> children_of(pid_t parent);

// From here on orphans among our descendants become our children, so that none is lost from sight.
void adopt_orphans();

// "signal 9 (SIGKILL)"
std::string signal_text(int number);
bool is_ignored(int signal);  // by this process

struct ProcessStart {
  std::vector<std::string> command{};      // command[0] is looked up in PATH
  std::vector<std::string> environment{};  // NAME=value, complete
  std::filesystem::path output{};          // stdout and stderr are appended here; empty: ours
  int errors = -1;                         // the descriptor that is its stderr; -1: as `output` says
  bool own_group = true;                 // out of the reach of the terminal's Ctrl-C
  bool silent_input = true;              // stdin is /dev/null
  bool deaf_to_term = false;             // it starts with SIGTERM blocked
};

// Starts a child that is killed when the calling thread ends (also by SIGKILL). Signals are to it what they are to any program,
// but for those that it ignores as we do: a hang-up that we were told to ignore, as nohup does, and SIGXFSZ. Throws
// Error(unavailable) when the program can't be executed, Error(fault) where that may pass: for want of processes, memory or
// descriptors, or while it is being written.
pid_t start_process(const ProcessStart& start);

}  // namespace smlp
