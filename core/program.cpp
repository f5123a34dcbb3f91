#include "core/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "core/clock.h"

extern char** environ;

namespace smlp {

namespace {

constexpr std::size_t kept_bytes = 16 << 20;
constexpr int glance_milliseconds = 50;  // between looks whether the program has ended

class Pipe {
 public:
  Pipe() {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) {
      failure_ = errno;
      return;
    }
    read_end_ = ends[0];
    write_end_ = ends[1];
    fcntl(read_end_, F_SETFL, O_NONBLOCK);
  }
  ~Pipe() {
    close_end(read_end_);
    close_end(write_end_);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  int failure() const { return failure_; }  // errno of a pipe that could not be made; 0: it could
  void started() { close_end(write_end_); }  // the child alone has the other end
  int read_end() const { return read_end_; }
  int write_end() const { return write_end_; }
  bool open() const { return read_end_ >= 0; }

  // All that is there now; closes itself at the end of the stream.
  void drain(std::string& into) {
    std::array<char, 65536> block{};
    while (open()) {
      const ssize_t n = read(read_end_, block.data(), block.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return;
      if (n <= 0) return close_end(read_end_);
      const auto room = kept_bytes - std::min(into.size(), kept_bytes);
      into.append(block.data(), std::min(static_cast<std::size_t>(n), room));
    }
  }

 private:
  static void close_end(int& descriptor) {
    if (descriptor >= 0) close(descriptor);
    descriptor = -1;
  }
  int read_end_ = -1, write_end_ = -1, failure_ = 0;
};

// What posix_spawn is told, freed again.
class SpawnPlan {
 public:
  SpawnPlan(const Pipe& out, const Pipe& err) {
    posix_spawn_file_actions_init(&actions_);
    posix_spawn_file_actions_addopen(&actions_, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions_, out.write_end(), 1);
    posix_spawn_file_actions_adddup2(&actions_, err.write_end(), 2);
    posix_spawnattr_init(&attributes_);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setpgroup(&attributes_, 0);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  }
  ~SpawnPlan() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;
  const posix_spawn_file_actions_t* actions() const { return &actions_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

void wait_a_glance(const Pipe& out, const Pipe& err) {
  std::array<pollfd, 2> streams{{{out.read_end(), POLLIN, 0}, {err.read_end(), POLLIN, 0}}};
  poll(streams.data(), streams.size(), glance_milliseconds);
}

// It stays a zombie, so that its number is nobody else's yet.
bool has_ended(pid_t child) {
  siginfo_t facts{};
  return waitid(P_PID, static_cast<id_t>(child), &facts, WEXITED | WNOHANG | WNOWAIT) != 0 || facts.si_pid == child;
}

}  // namespace

ProgramAnswer run_program(const std::vector<std::string>& command, const std::vector<std::string>& environment,
                          double seconds) {
  ProgramAnswer answer;
  Pipe out, err;
  auto words = command, variables = environment;
  const auto arguments = exec_pointers(words), environment_pointers = exec_pointers(variables);
  pid_t child = 0;
  const SpawnPlan plan(out, err);
  int reason = out.failure() != 0 ? out.failure() : err.failure();
  if (reason == 0) {
    reason = posix_spawnp(&child, arguments.front(), plan.actions(), plan.attributes(), arguments.data(),
                          environment_pointers.data());
  }
  if (reason != 0) {
    answer.failure = fmt::format("{} could not be started: {}", command.front(), std::strerror(reason));
    return answer;
  }
  out.started();
  err.started();
  bool in_time = false;
  for (const double end = monotonic_seconds() + seconds; !in_time && monotonic_seconds() < end;) {
    wait_a_glance(out, err);
    out.drain(answer.out);
    err.drain(answer.err);
    in_time = has_ended(child);
  }
  kill(-child, SIGKILL);  // also what an ended program left behind
  out.drain(answer.out);
  err.drain(answer.err);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!in_time) {
    answer.failure = fmt::format("{} did not answer within {} s", command.front(), seconds);
    return answer;
  }
  answer.code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return answer;
}

std::string path_of_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path ? path : "");
  for (std::string folder; std::getline(folders, folder, ':');) {
    auto file = fmt::format("{}/{}", folder.empty() ? "." : folder, name);
    if (access(file.c_str(), X_OK) == 0) return file;
  }
  return "";
}

bool is_on_path(const std::string& program) { return !path_of_program(program).empty(); }

std::vector<std::string> own_environment() {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.emplace_back(*variable);
  return variables;
}

std::vector<char*> exec_pointers(std::vector<std::string>& words) {
  std::vector<char*> list;
  for (auto& word : words) list.push_back(word.data());
  list.push_back(nullptr);
  return list;
}

}  // namespace smlp
