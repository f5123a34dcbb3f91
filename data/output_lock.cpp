#include "data/output_lock.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/clock.h"
#include "core/error.h"
#include "core/host_name.h"
#include "core/json_lines.h"
#include "core/json_text.h"

namespace smlp {

namespace {

constexpr double patience_seconds = 1;

// Who wrote the words in a lock, where that can still be its holder: a new one writes them right after it took the lock, and
// until then they are those of a process that was killed.
std::optional<std::string> holder_in(const std::filesystem::path& lock) {
  const auto words = read_json_file(lock, 4096);
  const auto pid = integer_in(words, "pid");
  const auto host = text_in(words, "host");
  if (!pid || host.empty()) return std::nullopt;
  const bool here = host == host_name();
  if (here && ::kill(static_cast<pid_t>(*pid), 0) != 0 && errno == ESRCH) return std::nullopt;
  return fmt::format("process {} on {}", *pid, host);
}

}  // namespace

std::filesystem::path lock_of(const std::filesystem::path& output) {
  return output.parent_path() / fmt::format(".{}.smlp-lock", output.filename().string());
}

bool make_output_folder(const std::filesystem::path& folder) {
  std::error_code code;
  const bool made = std::filesystem::create_directories(folder, code);
  if (code) {
    throw Error(ExitCode::io_failed, fmt::format("the folder {} can't be made: {}", folder.string(), code.message()));
  }
  return made;
}

OutputLock::OutputLock(const std::string& output, std::filesystem::path file)
    : file_(std::move(file)), lock_(FileLock::none()) {
  if (file_.has_parent_path()) made_folder_ = make_output_folder(file_.parent_path());
  take(output);
  try {
    lock_.write(json_text(nlohmann::json({{"host", host_name()}, {"pid", ::getpid()}, {"since", utc_time()}})) + "\n");
  } catch (const Error&) {
    std::error_code ignored;
    std::filesystem::remove(file_, ignored);
    throw;
  }
}

void OutputLock::take(const std::string& output) {
  for (const double end = monotonic_seconds() + patience_seconds;;) {
    lock_ = FileLock::try_lock(file_, FileLock::Kind::exclusive);
    if (lock_.held() && lock_.still_named(file_)) return;
    const auto holder = lock_.held() ? std::nullopt : holder_in(file_);  // held: another removed it and has ended, meanwhile
    if (holder || monotonic_seconds() > end) {
      throw Error(ExitCode::call_again, fmt::format("{} is in use by {}, which writes it; wait for its end, or choose another "
                                                    "output",
                                                    output, holder.value_or("another process")));
    }
    sleep_seconds(0.02);
  }
}

OutputLock::~OutputLock() {
  std::error_code ignored;
  std::filesystem::remove(file_, ignored);  // while it is held, see take()
  if (made_folder_) std::filesystem::remove(file_.parent_path(), ignored);
}

}  // namespace smlp
