#include "launcher/mpi_launch.h"

#include <fmt/format.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <map>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "core/features.h"
#include "core/tell.h"
#include "launcher/processes.h"
#include "launcher/rank_words.h"
#include "launcher/signal_queue.h"

extern char** environ;

namespace smlp {

namespace {

constexpr std::string_view session_prefix = "smlp-session-";

// In memory, where there is room for what ranks of one host share: 4 MiB each, and as much for Open MPI itself.
bool has_room(const char* folder, std::int64_t ranks) {
  std::error_code unknown;
  const auto free = std::filesystem::space(folder, unknown).available;
  return !unknown && free >= static_cast<std::uint64_t>(5 * ranks + 8) << 20;
}

constexpr const char* in_memory = "/dev/shm";

std::filesystem::path temporary_folder() {
  std::error_code ignored;
  const auto folder = std::filesystem::temp_directory_path(ignored);
  return folder.empty() ? "/tmp" : folder;
}

bool marks_an_outer_launch(std::string_view variable) {
  constexpr std::array prefixes = {"SLURM_", "PMI_", "PMIX_", "OMPI_COMM_WORLD_", "OMPI_UNIVERSE_"};
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](std::string_view prefix) { return variable.starts_with(prefix); });
}

using Variables = std::map<std::string, std::string>;

// Ours but for those to leave out, and what every rank needs.
Variables rank_variables(const LaunchShape& shape, const CoreCount& cores, bool (*leave_out)(std::string_view)) {
  Variables variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text(*variable);
    if (leave_out(text)) continue;
    variables.emplace(text.substr(0, text.find('=')), text.substr(std::min(text.find('=') + 1, text.size())));
  }
  const std::string yes(1, '1');
  variables["OMPI_ALLOW_RUN_AS_ROOT"] = yes;
  variables["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = yes;
  variables["OMP_NUM_THREADS"] = fmt::format("{}", shape.threads);
  if (getpwuid(geteuid()) == nullptr) variables.emplace("HOME", "/tmp");  // else PMIx looks for one, and dies
  variables.emplace("OMPI_MCA_odls_base_sigkill_timeout", "0");  // else a dead rank is told 1 s later
  if (shape.ranks * shape.threads > cores.cores) {
    // Waiting ranks that spin on too few cores make a collective 2000 times slower.
    variables.emplace("OMPI_MCA_mpi_yield_when_idle", "1");
  }
  return variables;
}

void append(std::vector<std::string>& words, const std::vector<std::string>& more) {
  words.insert(words.end(), more.begin(), more.end());
}

std::vector<std::string> as_list(const Variables& variables) {
  std::vector<std::string> list;
  for (const auto& [name, value] : variables) list.push_back(name + "=" + value);
  return list;
}

// While it lives, a signal that asks to stop ends the child, and us when the child has ended and what it used is cleared away.
// Ctrl-C reaches both, which are of one group; what another process sent to us alone is passed on.
class Interrupts {
 public:
  Interrupts() {
    taken_ = 0;
    to_pass_on_ = 0;
    child_ = 0;
    struct sigaction action {};
    action.sa_sigaction = take;
    action.sa_flags = SA_SIGINFO;
    for (const int number : signals_) sigaction(number, &action, nullptr);
    signal(SIGQUIT, SIG_IGN);
  }
  ~Interrupts() {
    for (const int number : signals_) signal(number, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
  }
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  void pass_on_to(pid_t child) const {
    child_ = child;
    if (to_pass_on_ != 0) kill(child, to_pass_on_);
  }
  int seen() const { return taken_; }  // 0: none

 private:
  static void take(int number, siginfo_t* info, void*) {
    const bool by_a_process = info->si_code == SI_USER || info->si_code == SI_QUEUE;
    taken_ = number;
    if (by_a_process && child_ == 0) to_pass_on_ = number;
    if (by_a_process && child_ != 0) kill(child_, number);
  }

  const std::vector<int> signals_ = signals_to_take();
  static volatile std::sig_atomic_t taken_, to_pass_on_, child_;
};

volatile std::sig_atomic_t Interrupts::taken_ = 0, Interrupts::to_pass_on_ = 0, Interrupts::child_ = 0;

}  // namespace

std::filesystem::path find_worker() {
  std::filesystem::path worker;
  if (const char* chosen = std::getenv("SMLP_WORKER")) {
    worker = chosen;
  } else {
    worker = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "smlp-worker";
  }
  if (access(worker.c_str(), X_OK) != 0) {
    throw Error(ExitCode::unavailable,
                fmt::format("the program {} can't be executed; `make build` puts it beside smlp", worker.string()));
  }
  return worker;
}

CoreCount count_cores() {
  CoreCount count{.cores = 0, .threads = 0};
  for (const auto& core : cores_here()) {
    ++count.cores;
    count.threads += static_cast<std::int64_t>(core.size());
  }
  return count.cores > 0 ? count : CoreCount{};
}

SessionFolder::SessionFolder(std::int64_t ranks) : lock_(FileLock::none()) {
  const bool is_there = access(in_memory, W_OK | X_OK) == 0 && has_room(in_memory, ranks);
  const auto parent = is_there ? std::filesystem::path(in_memory) : temporary_folder();
  std::string pattern = parent / fmt::format("{}XXXXXX", session_prefix);
  if (mkdtemp(pattern.data()) == nullptr) {
    throw Error(ExitCode::io_failed, fmt::format("no folder could be made in {} for Open MPI's session: {}", parent.string(),
                                                 std::strerror(errno)));
  }
  path_ = pattern;
  lock_ = FileLock::try_lock(path_ / "lock", FileLock::Kind::exclusive);
}

SessionFolder::~SessionFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void SessionFolder::sweep() {
  std::error_code ignored;
  auto entries = entries_of(in_memory);
  const auto others = entries_of(temporary_folder());
  entries.insert(entries.end(), others.begin(), others.end());
  for (const auto& entry : entries) {
    struct stat facts {};
    if (!entry.filename().string().starts_with(session_prefix)) continue;
    if (lstat(entry.c_str(), &facts) != 0 || facts.st_uid != geteuid()) continue;
    if (time(nullptr) - facts.st_mtime < 60) continue;  // perhaps between its making and its lock
    try {
      const auto lock = FileLock::try_lock(entry / "lock", FileLock::Kind::exclusive);
      if (lock.held()) std::filesystem::remove_all(entry, ignored);
    } catch (const Error&) {
      // Somebody else is sweeping it.
    }
  }
}

std::vector<std::string> mpirun_command(const LaunchShape& shape, bool bound) {
  std::vector<std::string> command = {"mpirun", "-n", fmt::format("{}", shape.ranks)};
  if (!bound) command.push_back("--oversubscribe");
  command.insert(command.end(), {"--bind-to", "none"});
  return command;
}

std::vector<std::string> binding_option(const CoreDemand& demand) {
  return {"--bind", fmt::format("{}x{}", demand.ranks, demand.each)};
}

std::vector<std::string> launch_environment(const LaunchShape& shape, const CoreCount& cores,
                                            const std::filesystem::path& session) {
  auto variables = rank_variables(shape, cores, marks_an_outer_launch);
  if (!session.empty()) {
    variables["OMPI_MCA_orte_tmpdir_base"] = session;
    variables["OMPI_MCA_btl_vader_backing_directory"] = session;
  }
  // What a user has set otherwise stands.
  variables.emplace("OMPI_MCA_btl", "self,vader");
  variables.emplace("OMPI_MCA_pml", "ob1");
  variables.emplace("OMPI_MCA_oob_tcp_if_include", "lo");
  return as_list(variables);
}

std::vector<std::string> allocation_environment(const LaunchShape& on_a_node, const CoreCount& cores) {
  auto variables = rank_variables(on_a_node, cores, [](std::string_view) { return false; });
  // On plain Ethernet Open MPI 4.1 takes libfabric over sockets for a fabric: slower than its own TCP, and what a rank
  // has sent last is lost when it leaves before its peers, which then wait for ever. Real fabrics are not in the list.
  variables.emplace("OMPI_MCA_mtl_ofi_provider_exclude",
                    "shm,sockets,tcp,udp,rstream,usnic,net,tcp;ofi_rxm,net;ofi_rxm,sockets;ofi_rxm,tcp;ofi_rxd,udp;ofi_rxd");
  // On fewer nodes than its TreeWidth, the tree of SLURM 22.05's PMIx is one root a node: the barrier that ends MPI_Init
  // waits for nobody, and a rank dies at address 0 of a message that comes before it can take one. Its ring waits.
  variables.emplace("SLURM_PMIX_FENCE", "ring");
  return as_list(variables);
}

int run_worker(const std::vector<std::string>& arguments, const LaunchShape& shape) {
  need_ranks(shape.ranks);
  const auto cores = count_cores();
  const auto worker = find_worker();
  SessionFolder::sweep();
  const SessionFolder session(shape.ranks);
  ProcessStart start{.own_group = false, .silent_input = false};
  const CoreDemand demand{.ranks = shape.ranks, .each = shape.threads};
  const bool bound = shape.ranks > 1 && may_bind(demand, cores.cores, false);
  if (shape.ranks > 1) start.command = mpirun_command(shape, bound);
  start.command.push_back(worker);
  start.command.insert(start.command.end(), arguments.begin(), arguments.end());
  if (bound) append(start.command, binding_option(demand));
  start.environment = launch_environment(shape, cores, session.path());
  std::fflush(nullptr);
  std::optional<RankWords> words;
  if (shape.ranks > 1) start.errors = words.emplace(stderr).entrance();
  const Interrupts interrupts;
  const pid_t child = start_process(start);
  interrupts.pass_on_to(child);
  if (words) words->pass_on();
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (words) words->end(WIFEXITED(status) ? WEXITSTATUS(status) : 0);
  if (interrupts.seen() != 0 && status != 0) return 128 + interrupts.seen();  // mpirun's own code is 1
  if (!WIFSIGNALED(status)) return WEXITSTATUS(status);
  const int number = WTERMSIG(status);
  if (number == SIGPIPE) return 128 + number;  // whoever read its words has enough
  tell("{} was killed by {}{}", start.command.front(), signal_text(number),
       number == SIGKILL ? "; without anybody's doing it is the kernel's, for want of memory" : "");
  return 128 + number;
}

}  // namespace smlp
