#include "core/lock_holder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "core/host_name.h"
#include "core/json_lines.h"
#include "core/json_text.h"
#include "core/process.h"

namespace smlp {

bool LockHolder::here() const { return host == host_name(); }
bool LockHolder::alive() const { return is_alive(pid); }
std::string LockHolder::words() const { return fmt::format("process {} on {}", pid, host); }

void write_holder(FileLock& lock) {
  lock.write(json_text(nlohmann::json({{"host", host_name()}, {"pid", getpid()}, {"since", utc_time()}})) + "\n");
}

std::optional<LockHolder> last_holder(const std::filesystem::path& lock) {
  const auto words = read_json_file(lock, 4096);
  const auto pid = integer_in(words, "pid");
  if (!pid) return std::nullopt;
  return LockHolder{text_in(words, "host"), static_cast<pid_t>(*pid)};
}

std::optional<LockHolder> possible_holder(const std::filesystem::path& lock) {
  auto holder = last_holder(lock);
  if (holder && (holder->host.empty() || (holder->here() && !holder->alive()))) holder.reset();
  return holder;
}

}  // namespace smlp
