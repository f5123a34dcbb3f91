#include "launcher/disk_room.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace smlp {

namespace {

constexpr std::size_t probe_bytes = 1 << 20;

int write_and_flush(int file) {
  const std::vector<char> block(probe_bytes);
  for (std::size_t at = 0; at < block.size();) {
    const auto written = ::write(file, block.data() + at, block.size() - at);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    at += static_cast<std::size_t>(written);
  }
  return ::fsync(file) == 0 ? 0 : errno;
}

}  // namespace

std::string why_no_room(const std::filesystem::path& folder, std::int64_t bytes) {
  auto name = (folder / ".room-XXXXXX").string();
  const int file = ::mkostemp(name.data(), O_CLOEXEC);
  int reason = errno;
  if (file >= 0) {
    ::unlink(name.c_str());
    reason = write_and_flush(file);
    if (::close(file) != 0 && reason == 0) reason = errno;
  }
  if (reason == ENOSPC || reason == EDQUOT) {
    return fmt::format("the disk of {} is full ({})", folder.string(), std::strerror(reason));
  }
  std::error_code unknown;
  const auto free = std::filesystem::space(folder, unknown).available;
  if (unknown || free >= static_cast<std::uintmax_t>(bytes)) return "";
  return fmt::format("the disk of {} has {:.1f} MB free where {:.1f} MB are needed", folder.string(),
                     1e-6 * static_cast<double>(free), 1e-6 * static_cast<double>(bytes));
}

}  // namespace smlp
