#include "core/process.h"

#include <fmt/format.h>

#include <cerrno>
#include <csignal>
#include <string_view>

#include "core/files.h"

namespace smlp {

bool is_alive(pid_t pid) {
  if (pid <= 0 || (kill(pid, 0) != 0 && errno == ESRCH)) return false;
  const auto stat = read_if_there(fmt::format("/proc/{}/stat", pid));  // the name before the state may hold anything
  const auto end = stat.rfind(") ");
  return end == std::string::npos || std::string_view("ZX").find(stat[end + 2]) == std::string_view::npos;
}

}  // namespace smlp
