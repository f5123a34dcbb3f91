#include "worker/heartbeat.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <utility>

#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "core/host_name.h"

namespace smlp {

namespace {

constexpr int line_bytes = 256;
constexpr unsigned report_seconds = 5;  // a file system that hangs must not keep a hung rank
constexpr double limits_interval = 60;

// Its clients keep what is written to an open file for half a minute, in which the launcher on another node saw nothing.
bool is_on_nfs(int file) {
  struct statfs facts {};
  return ::fstatfs(file, &facts) == 0 && facts.f_type == NFS_SUPER_MAGIC;
}

}  // namespace

Heartbeat::Heartbeat(const RunDirectory& run, int attempt, int rank, const HangSettings& settings, Report report)
    : run_(run), attempt_(attempt), rank_(rank), report_(std::move(report)), limits_(settings) {
  marked_ = progressed_ = monotonic_seconds();
  longest_.fill(0);
  limits_.recall(read_if_there(run.limits()));
  host_ = host_name();
  const auto file = run.heartbeat(rank);
  file_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file_ < 0) {
    throw Error(ExitCode::io_failed,
                fmt::format("the heartbeat file {} can't be opened: {}", file.string(), std::strerror(errno)));
  }
  on_nfs_ = is_on_nfs(file_);
  thread_ = std::jthread([this](std::stop_token stop) { pulse(stop); });
}

Heartbeat::~Heartbeat() {
  thread_.request_stop();
  thread_.join();
  ::close(file_);
}

// The mutex is held.
void Heartbeat::mark() {
  const double now = monotonic_seconds();
  auto& longest = longest_[static_cast<std::size_t>(section_)];
  longest = std::max(longest, now - marked_);
  marked_ = progressed_ = now;
  ++sequence_;
}

void Heartbeat::enter(Section section, std::int64_t step) {
  const std::scoped_lock lock(mutex_);
  mark();
  if (section_ == Section::evaluation && section != Section::evaluation) {
    limits_.took(section_, std::exchange(longest_[static_cast<std::size_t>(section_)], 0.0));
  }
  section_ = section;
  step_ = step;
}

void Heartbeat::beat() {
  const std::scoped_lock lock(mutex_);
  mark();
}

void Heartbeat::step_done(double collective, bool restored) {
  const std::scoped_lock lock(mutex_);
  mark();
  const auto take = [&](Section section) { return std::exchange(longest_[static_cast<std::size_t>(section)], 0.0); };
  const double start = take(Section::start), data = take(Section::data), step = take(Section::step);
  if (!std::exchange(start_known_, true)) {
    if (restored) limits_.took(Section::start, std::max({start, data, step}));
    return limits_.took(Section::step, step);
  }
  limits_.took(Section::data, data);
  limits_.took(Section::step, step);
  limits_.took(Section::exchange, collective);
}

void Heartbeat::saved(double seconds) {
  const std::scoped_lock lock(mutex_);
  limits_.took(Section::checkpoint, seconds);
}

void Heartbeat::look_at(std::function<LoopPlace()> loop) {
  const std::scoped_lock lock(mutex_);
  loop_ = std::move(loop);
}

void Heartbeat::on_ranks(int ranks) {
  const std::scoped_lock lock(mutex_);
  limits_.on_ranks(ranks);
}

// The mutex is held.
void Heartbeat::look() {
  if (!loop_) {
    seen_.inside = false;
    seen_.writing.reset();
    return;
  }
  auto now = loop_();
  if (now.collectives != seen_.collectives) progressed_ = monotonic_seconds();
  seen_ = std::move(now);
}

Section Heartbeat::shown() const {
  return section_ == Section::step && seen_.inside ? Section::exchange : section_;
}

Heartbeat::Place Heartbeat::place() const {
  const std::scoped_lock lock(mutex_);
  return {shown(), step_, sequence_, monotonic_seconds() - progressed_};
}

double Heartbeat::limit_seconds(Section section) const {
  const std::scoped_lock lock(mutex_);
  return limits_.seconds(section);
}

// The mutex is held.
std::string Heartbeat::line(bool gives_up) {
  const auto& own = seen_.writing;
  const auto disk = own ? fmt::format(" disk {:.3f} {:.3f}", own->seconds, limits_.seconds(Section::checkpoint)) : "";
  const auto text = fmt::format("{} {} {} {:.3f} {} {} {:.3f} {} {} {} {} {} {}{}{}", step_, name_of(shown()), sequence_,
                                progressed_, getpid(), host_, limits_.seconds(shown()), attempt_, ++pulses_,
                                seen_.collectives, seen_.inside ? 1 : 0, seen_.call, seen_.block, disk,
                                gives_up ? " gives_up" : "");
  return fmt::format("{:<{}}\n", text, line_bytes - 1);
}

void Heartbeat::keep_limits(std::unique_lock<std::mutex>& lock, bool last) {
  const double now = monotonic_seconds();
  const bool due = last || now - kept_ >= limits_interval;
  if (rank_ != 0 || !due || !limits_.knows_steps()) return;
  kept_ = now;
  const auto text = limits_.text();
  lock.unlock();
  try {
    write_atomically(run_.limits(), text);
  } catch (const std::exception&) {
    // A full disk: the next attempt learns anew.
  }
  lock.lock();
}

// The mutex is held.
std::string Heartbeat::complaint() const {
  if (const auto& own = seen_.writing; own && own->seconds > limits_.seconds(Section::checkpoint)) {
    return fmt::format("no progress for {:.1f} s (limit {:.1f} s) in section '{}' of step {}: {} does not answer while this "
                       "rank writes its part of that save: ending this rank",
                       own->seconds, limits_.seconds(Section::checkpoint), name_of(Section::checkpoint), own->step,
                       own->tier == Tier::local ? "the disk of checkpoint.local_dir" : "the disk of the run directory");
  }
  const double seconds = monotonic_seconds() - progressed_, limit = limits_.seconds(shown());
  if (seconds <= limit) return "";
  return fmt::format("no progress for {:.1f} s (limit {:.1f} s) in section '{}' of step {}, block {}, {} collectives begun, "
                     "{} {}, progress mark {}: ending this rank",
                     seconds, limit, name_of(shown()), step_, seen_.block, seen_.collectives,
                     seen_.inside ? "inside" : "the last", seen_.call, sequence_);
}

void Heartbeat::give_up(const std::string& sentence) {
  std::signal(SIGALRM, [](int) { _exit(hung_status); });
  alarm(report_seconds);
  report_(sentence);
  _exit(hung_status);
}

void Heartbeat::pulse(std::stop_token stop) {
  std::condition_variable_any wake;
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    look();
    const auto why = complaint();
    const auto text = line(!why.empty());
    lock.unlock();
    // A failed write is left to the launcher, which then sees an old mark: nothing better can be done here.
    [[maybe_unused]] const auto written = ::pwrite(file_, text.data(), text.size(), 0);
    if (on_nfs_) ::sync_file_range(file_, 0, 0, SYNC_FILE_RANGE_WRITE);
    if (!why.empty()) give_up(why);
    lock.lock();
    keep_limits(lock, false);
    wake.wait_for(lock, stop, std::chrono::milliseconds(500), [] { return false; });
  }
  keep_limits(lock, true);
}

}  // namespace smlp
