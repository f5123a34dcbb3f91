#include "worker/heartbeat.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cerrno>
#include <climits>
#include <condition_variable>
#include <cstring>

#include "core/error.h"

namespace smlp {

namespace {

constexpr double start_limit_seconds = 300, checkpoint_limit_seconds = 600;
constexpr double factor = 10;
constexpr int line_bytes = 256;
constexpr std::size_t window = 32, enough = 3;

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

const char* name_of(Section section) {
  switch (section) {
    case Section::start: return "start";
    case Section::data: return "data";
    case Section::step: return "step";
    case Section::checkpoint: return "checkpoint";
    case Section::evaluation: return "evaluation";
    case Section::finish: return "finish";
  }
  return "?";
}

Heartbeat::Heartbeat(const std::filesystem::path& file, double floor_seconds,
                     std::function<void(const std::string&)> report)
    : floor_seconds_(floor_seconds), report_(std::move(report)), progressed_(now_seconds()) {
  char host[HOST_NAME_MAX + 1] = {};
  gethostname(host, HOST_NAME_MAX);
  host_ = host;
  file_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file_ < 0) {
    throw Error(ExitCode::io_failed,
                fmt::format("the heartbeat file {} can't be opened: {}", file.string(), std::strerror(errno)));
  }
  write();
  thread_ = std::jthread([this](std::stop_token stop) { pulse(stop); });
}

Heartbeat::~Heartbeat() {
  thread_.request_stop();
  thread_.join();
  ::close(file_);
}

void Heartbeat::enter(Section section, std::int64_t step) {
  const std::scoped_lock lock(mutex_);
  section_ = section;
  step_ = step;
  ++sequence_;
  progressed_ = now_seconds();
}

void Heartbeat::beat() {
  const std::scoped_lock lock(mutex_);
  ++sequence_;
  progressed_ = now_seconds();
}

void Heartbeat::step_took(double seconds) {
  const std::scoped_lock lock(mutex_);
  if (recent_.size() < window) {
    recent_.push_back(seconds);
  } else {
    recent_[next_] = seconds;
    next_ = (next_ + 1) % window;
  }
}

Heartbeat::Place Heartbeat::place() const {
  const std::scoped_lock lock(mutex_);
  return {section_, step_, sequence_, now_seconds() - progressed_};
}

double Heartbeat::limit_seconds(Section section) const {
  if (section == Section::checkpoint || section == Section::finish) return checkpoint_limit_seconds;
  if (section == Section::start || recent_.size() < enough) return std::max(start_limit_seconds, floor_seconds_);
  auto sorted = recent_;
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return std::max(floor_seconds_, factor * *middle);
}

void Heartbeat::write() {
  const auto text = fmt::format("{} {} {} {:.3f} {} {} {:.3f}", step_, name_of(section_), sequence_, progressed_,
                                getpid(), host_, limit_seconds(section_));
  const auto line = fmt::format("{:<{}}\n", text, line_bytes - 1);
  // A failed write is left to the launcher, which then sees an old mark: nothing better can be done here.
  [[maybe_unused]] const auto written = ::pwrite(file_, line.data(), line.size(), 0);
}

void Heartbeat::pulse(std::stop_token stop) {
  std::condition_variable_any wake;
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    const double now = now_seconds(), limit = limit_seconds(section_);
    if (now - progressed_ > limit) {
      const auto sentence = fmt::format(
          "no progress for {:.1f} s (limit {:.1f} s) in section '{}' of step {}, progress mark {}: ending this rank",
          now - progressed_, limit, name_of(section_), step_, sequence_);
      report_(sentence);
      _exit(hung_status);
    }
    write();
    wake.wait_for(lock, stop, std::chrono::milliseconds(500), [] { return false; });
  }
}

}  // namespace smlp
