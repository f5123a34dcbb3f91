#include "core/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>

#include "core/error.h"

namespace smlp {

namespace {

constexpr std::size_t most_of_a_stream = std::size_t{64} << 20;

[[noreturn]] void fail(const char* what, const std::filesystem::path& path) {
  const int reason = errno;
  throw Error(ExitCode::io_failed, fmt::format("{} {} failed: {}", what, path.string(), std::strerror(reason)));
}

class Descriptor {
 public:
  Descriptor(const std::filesystem::path& path, int flags) : value_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    if (value_ < 0) fail("opening", path);
  }
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value() const { return value_; }
  // On network disks what was written may fail only here: full, or over a quota.
  void close(const std::filesystem::path& path) {
    if (::close(std::exchange(value_, -1)) != 0 && errno != EINTR) fail("writing", path);
  }

 private:
  int value_;
};

void write_all(int descriptor, std::string_view text, const std::filesystem::path& path) {
  while (!text.empty()) {
    const ssize_t n = ::write(descriptor, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("writing", path);
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

void replace(const std::filesystem::path& path, std::string_view text, bool durable) {
  auto beside = path;
  beside += fmt::format(".{}.tmp", ::getpid());
  try {
    Descriptor file(beside, O_WRONLY | O_CREAT | O_TRUNC);
    write_all(file.value(), text, path);
    if (durable && ::fsync(file.value()) != 0) fail("flushing", path);
    file.close(path);
    if (::rename(beside.c_str(), path.c_str()) != 0) fail("renaming to", path);
  } catch (...) {
    ::unlink(beside.c_str());
    throw;
  }
  if (durable) sync_file(path.has_parent_path() ? path.parent_path() : ".");
}

}  // namespace

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    const bool missing = errno == ENOENT;
    if (missing) throw Error(ExitCode::configuration, fmt::format("there is no file {}", path.string()));
    fail("opening", path);
  }
  std::error_code unknown;
  if (std::filesystem::is_directory(path, unknown)) {  // opens, but throws when it is read
    throw Error(ExitCode::configuration, fmt::format("{} is a folder, where a file is needed", path.string()));
  }
  if (std::filesystem::is_regular_file(path, unknown)) {
    std::string text((std::istreambuf_iterator<char>(file)), {});
    if (file.bad()) fail("reading", path);
    return text;
  }
  std::string text(most_of_a_stream, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) fail("reading", path);
  if (file) {
    throw Error(ExitCode::configuration, fmt::format("{} is a device or a pipe, and does not end within {} MiB; name a file",
                                                     path.string(), most_of_a_stream >> 20));
  }
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

std::string read_if_there(const std::filesystem::path& path) noexcept {
  std::ostringstream text;
  // Through operator<<, which sets badbit where istreambuf_iterator would let the buffer's exception out.
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return std::move(text).str();
}

void write_durably(const std::filesystem::path& path, std::string_view text) { replace(path, text, true); }
void write_atomically(const std::filesystem::path& path, std::string_view text) { replace(path, text, false); }

void append_line(const std::filesystem::path& path, std::string_view text) {
  Descriptor file(path, O_RDWR | O_CREAT | O_APPEND);
  const auto size = ::lseek(file.value(), 0, SEEK_END);
  char last = '\n';
  if (size > 0 && ::pread(file.value(), &last, 1, size - 1) != 1) last = '\n';
  std::string line(last == '\n' ? 0 : 1, '\n');
  line.append(text).push_back('\n');
  write_all(file.value(), line, path);
  file.close(path);
}

std::optional<double> written_at(const std::filesystem::path& path) noexcept {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0) return std::nullopt;
  return static_cast<double>(facts.st_mtim.tv_sec) + 1e-9 * static_cast<double>(facts.st_mtim.tv_nsec);
}

void sync_file(const std::filesystem::path& path) {
  const Descriptor file(path, O_RDONLY);
  if (::fsync(file.value()) != 0) fail("flushing", path);
}

void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail("renaming to", to);
  sync_file(to.has_parent_path() ? to.parent_path() : ".");
}

FileLock FileLock::try_lock(const std::filesystem::path& path, Kind kind) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) fail("opening the lock", path);
  FileLock lock(descriptor);
  if (::flock(descriptor, (kind == Kind::shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0) return lock;
  if (errno != EWOULDBLOCK && errno != EINTR) fail("locking (flock, which this disk may not offer: choose another)", path);
  return none();
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}
FileLock::~FileLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void FileLock::write(std::string_view text) {
  if (::ftruncate(descriptor_, 0) != 0 || ::pwrite(descriptor_, text.data(), text.size(), 0) < 0) {
    fail("writing", "the lock file");
  }
}

}  // namespace smlp
