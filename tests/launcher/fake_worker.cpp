// Stands in for smlp-worker under a real mpirun: does what RUN_DIR/script tells the rank in this attempt.
// A line: ATTEMPT RANK ACTION [ARGUMENT…], "*" for any. Actions run in order; then the rank leaves with 0.
//   steps N [ms]    N steps, in step with the other ranks; a request to stop (SIGUSR1) publishes a checkpoint and leaves with 75
//   checkpoint      rank 0 publishes the current step       wait        until asked to stop
//   local           the nodes save the current step         lost        and hold it no more
//   requested       waits until there is a request for the run
//   raise N         that signal to itself                   exit N [sentence]
//   hang            no more progress, heartbeats go on      mute        no more heartbeats
//   deaf            requests and SIGTERM are ignored        limit S     seconds allowed by its heartbeats
//   verdict JSON    leaves it for the launcher
//   early           waits before it has chosen its checkpoint (first line)
//   silent          never a heartbeat (first line)          orphan      leaves a process of its own behind
//   elsewhere       its heartbeats name another host (first line)
// A checkpoint whose manifest is not as it publishes them is rejected.
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "core/clock.h"
#include "core/control_folder.h"
#include "core/files.h"
#include "core/host_name.h"
#include "core/run_directory.h"
#include "launcher/processes.h"
#include "launcher/run_history.h"

namespace {

using namespace smlp;

volatile std::sig_atomic_t asked = 0;

struct Worker {
  RunDirectory run;
  int attempt = 0, rank = 0, ranks = 1;
  std::int64_t not_after = 1 << 30;
  std::atomic<std::int64_t> step = 0, sequence = 0;
  std::atomic<double> progressed = monotonic_seconds(), limit = 60;
  std::atomic<bool> mute = false;
  std::string host = host_name();
  std::int64_t published = 0, local = 0, stop_after = 0, pulses = 0;

  void beat() {
    ++sequence;
    progressed = monotonic_seconds();
  }
  void pulse() {
    while (!mute) {
      write_atomically(run.heartbeat(rank), fmt::format("{} step {} {:.3f} {} {} {} {} {} 0 0 - -\n", step.load(),
                                                        sequence.load(), progressed.load(), getpid(), host,
                                                        limit.load(), attempt, ++pulses));
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
  // All ranks return once it is published, as the real ones do: the first to leave ends the others.
  void publish() {
    published = step;
    if (rank == 0) {
      std::filesystem::create_directories(run.checkpoint(published));
      write_atomically(run.manifest(published), "{}");
    }
    for (int i = 0; i < 400 && RunHistory(run).newest_step().value_or(0) < published; ++i) usleep(5000);
  }
  void restore() {
    for (const auto s : RunHistory(run).published_steps()) {
      const bool damaged = read_if_there(run.manifest(s)) != "{}";
      if (s <= not_after && !damaged) step = published = s;
      if (damaged && rank == 0) {
        append_line(run.events(), fmt::format(R"({{"event":"checkpoint_rejected","attempt":{},"step":0,)"
                                              R"("detail":"{}: its manifest is damaged"}})", attempt, checkpoint_name(s)));
      }
      if ((s > not_after || damaged) && rank == 0) {
        const auto rejected = run.checkpoint(s).string() + ".rejected";
        std::filesystem::remove_all(rejected);
        std::filesystem::rename(run.checkpoint(s), rejected);
      }
    }
    std::int64_t saved = 0;
    std::ifstream(local_save()) >> saved;
    if (saved > step && saved <= not_after) step = local = saved;
    if (rank == 0) {
      append_line(run.events(), fmt::format(R"({{"event":"start","attempt":{},"step":{},"tier":"{}","detail":""}})", attempt,
                                            step.load(), local > 0 ? "local" : "shared"));
    }
  }
  void leave() {
    publish();
    std::_Exit(75);
  }
  std::filesystem::path local_save() const { return run.root / "local-save"; }
  std::filesystem::path mark(int of_rank) const { return run.root / fmt::format("mark-{}-{}", attempt, of_rank); }
  // As a collective would: waits for all ranks to come to this step, and agrees on the one to stop after (rank 0's).
  void meet() {
    if (asked && stop_after == 0) stop_after = step + 1;
    write_atomically(mark(rank), fmt::format("{} {}", step + 1, stop_after));
    for (int other = ranks - 1; other >= 0; --other) {
      for (std::int64_t theirs = 0; theirs <= step; usleep(1000)) {
        std::ifstream(mark(other)) >> theirs >> stop_after;
      }
    }
  }
  void one_step(int milliseconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    beat();
    if (rank == 0) {
      append_line(run.metrics(), fmt::format(R"({{"attempt":{},"step":{},"loss":2.5,"tokens_per_second":1000,)"
                                             R"("checkpoint_last_step":{},"local_checkpoint_last_step":{}}})",
                                             attempt, step + 1, published, local));
    }
    meet();
    ++step;
    beat();
    if (stop_after == step) leave();
  }
  void act(std::istringstream& words) {
    std::string action;
    int number = 0;
    words >> action;
    if (action == "steps") {
      int milliseconds = 10;
      words >> number >> milliseconds;
      for (int i = 0; i < number; ++i) one_step(milliseconds);
    } else if (action == "checkpoint") {
      publish();
    } else if (action == "local") {
      local = step;
      if (rank == 0) write_atomically(local_save(), fmt::format("{}", local));
    } else if (action == "lost") {
      if (rank == 0) std::filesystem::remove(local_save());
    } else if (action == "requested") {
      for (; ControlFolder(run.control()).requests().empty(); beat()) usleep(10000);
    } else if (action == "wait") {
      for (;; beat(), std::this_thread::sleep_for(std::chrono::milliseconds(10))) {
        if (asked) leave();
      }
    } else if (action == "raise") {
      words >> number;
      raise(number);
    } else if (action == "exit") {
      std::string sentence;
      words >> number;
      std::getline(words, sentence);
      if (!sentence.empty()) write_atomically(run.error(attempt, rank), fmt::format("rank {}:{}\n", rank, sentence));
      std::_Exit(number);
    } else if (action == "hang") {
      for (;;) pause();
    } else if (action == "verdict") {
      std::string json;
      std::getline(words, json);
      write_atomically(run.verdict(attempt), json);
    } else if (action == "mute") {
      mute = true;
    } else if (action == "deaf") {
      signal(SIGUSR1, SIG_IGN);
      signal(SIGTERM, SIG_IGN);
    } else if (action == "limit") {
      double seconds = 0;
      words >> seconds;
      limit = seconds;
      std::this_thread::sleep_for(std::chrono::milliseconds(120));  // until it is written
    } else if (action == "orphan") {
      if (fork() == 0) {
        setsid();
        sleep(60);
        std::_Exit(0);
      }
    }
  }
};

bool contains_line(const std::filesystem::path& file, const std::string& wanted) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line == wanted) return true;
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  Worker worker;
  std::string words;
  for (int i = 2; i < argc; ++i) {
    const std::string word = argv[i];
    words += word + "\n";
    if (word == "--run-dir") worker.run.root = argv[i + 1];
    if (word == "--attempt") worker.attempt = std::atoi(argv[i + 1]);
    if (word == "--not-after") worker.not_after = std::atoi(argv[i + 1]);
  }
  const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
  worker.rank = rank ? std::atoi(rank) : 0;
  const char* ranks = std::getenv("OMPI_COMM_WORLD_SIZE");
  worker.ranks = ranks ? std::atoi(ranks) : 1;
  signal(SIGUSR1, [](int) { asked = 1; });
  const auto alive = FileLock::try_lock(worker.run.workers_lock(), FileLock::Kind::shared);
  write_atomically(worker.run.root / fmt::format("arguments-{}-{}", worker.attempt, worker.rank), words);
  if (worker.rank == 0) {
    write_atomically(worker.run.targets(), R"([{"targets":["127.0.0.1:4711"],"labels":{}}])");
  }
  std::ifstream script(worker.run.root / "script");
  if (contains_line(worker.run.root / "script", fmt::format("{} * early", worker.attempt))) {
    for (;;) pause();
  }
  worker.restore();
  std::jthread pulse;
  for (std::string line; std::getline(script, line);) {
    std::istringstream parts(line);
    std::string attempt, of_rank;
    parts >> attempt >> of_rank;
    if (attempt != "*" && std::atoi(attempt.c_str()) != worker.attempt) continue;
    if (of_rank != "*" && std::atoi(of_rank.c_str()) != worker.rank) continue;
    if (line.ends_with(" silent")) worker.mute = true;
    if (line.ends_with(" elsewhere")) worker.host = "elsewhere";
    if (!pulse.joinable()) pulse = std::jthread([&] { worker.pulse(); });
    worker.act(parts);
  }
  std::_Exit(0);
}
