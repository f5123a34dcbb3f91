#include "core/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "core/error.h"

namespace smlp {

namespace {

constexpr std::size_t most_of_a_stream = std::size_t{64} << 20, most_at_once = std::size_t{1} << 20, at_least = 4096;

std::string remedy(int reason) {
  switch (reason) {
    case ENOSPC:
      return "; free some space (in a run's directory checkpoint.keep_last may be lowered)";
    case EDQUOT:
      return "; the disk quota of this user is used up";
    case EFBIG:
      return "; the limit on a file's size (ulimit -f) is too low";
    case EACCES:
    case EPERM:
      return "; give this user the right to do so";
    case EROFS:
      return "; make the disk writable, or choose a folder on another";
    case EMFILE:
      return "; raise the limit on open files (ulimit -n)";
    default:
      return "";
  }
}

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(const std::filesystem::path& path, int flags) : value_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    if (value_ < 0) fail_io("opening", path, errno);
  }
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value() const { return value_; }
  // On network disks what was written may fail only here: full, or over a quota.
  void close(const std::filesystem::path& path) {
    if (::close(std::exchange(value_, -1)) != 0 && errno != EINTR) fail_io("writing", path, errno);
  }

 private:
  int value_;
};

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

struct Contents {
  std::string text;
  bool folder = false, endless = false;
  int failure = 0;  // errno
};

Contents read_to_the_end(int descriptor) {
  struct stat facts {};
  ::fstat(descriptor, &facts);
  Contents contents{.text = {}, .folder = S_ISDIR(facts.st_mode)};
  const bool plain = S_ISREG(facts.st_mode);
  const std::size_t most = plain ? std::numeric_limits<std::size_t>::max() : most_of_a_stream;
  auto& text = contents.text;
  std::size_t got = 0, room = plain ? static_cast<std::size_t>(facts.st_size) + at_least : most_at_once;
  for (ssize_t n = 1; n != 0 && got < most;) {
    text.resize(got + std::min(room, most_at_once));
    n = ::read(descriptor, text.data() + got, text.size() - got);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      contents.failure = errno;
      break;
    }
    got += static_cast<std::size_t>(n);
    room = std::max(at_least, room - static_cast<std::size_t>(n));
  }
  text.resize(got);
  contents.endless = got >= most;
  return contents;
}

void replace(const std::filesystem::path& path, std::string_view text, bool durable) {
  auto beside = path;
  beside += fmt::format(".{}.tmp", ::getpid());
  try {
    Descriptor file(beside, O_WRONLY | O_CREAT | O_TRUNC);
    write_all(file.value(), bytes_of(text), 0, path);
    if (durable && ::fsync(file.value()) != 0) fail_io("flushing", path, errno);
    file.close(path);
    move_path(beside, path);
  } catch (...) {
    ::unlink(beside.c_str());
    throw;
  }
  if (durable) flush_folder(parent_of(path));
}

}  // namespace

void fail_io(std::string_view doing, const std::filesystem::path& path, int reason) {
  throw Error(ExitCode::io_failed,
              fmt::format("{} {} failed: {}{}", doing, path.string(), std::strerror(reason), remedy(reason)));
}

PathKind kind_of_path(const std::filesystem::path& path) {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0) {
    const int reason = errno;
    if (reason == ENOENT || reason == ENOTDIR || reason == ENAMETOOLONG) return PathKind::absent;
    fail_io("looking at", path, reason);
  }
  return S_ISREG(facts.st_mode) ? PathKind::file : S_ISDIR(facts.st_mode) ? PathKind::folder : PathKind::other;
}

std::filesystem::path parent_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

void write_all(int descriptor, std::span<const std::byte> bytes, std::optional<std::int64_t> position,
               const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t n = position ? ::pwrite(descriptor, bytes.data(), bytes.size(), *position)
                               : ::write(descriptor, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const int reason = n == 0 ? ENOSPC : errno;
      const auto place = position ? fmt::format(" at {}", *position) : "";
      fail_io(fmt::format("writing {} bytes{} of", bytes.size(), place), path, reason);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    if (position) *position += n;
  }
}

void move_path(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_io(fmt::format("renaming {} to", from.string()), to, errno);
}

void flush_folder(const std::filesystem::path& path) {
  const int opened = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (opened < 0) fail_io("opening the folder", path, errno);
  const Descriptor folder(opened);
  if (::fsync(folder.value()) != 0 && errno != EINVAL) fail_io("flushing the folder", path, errno);
}

void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to) {
  move_path(from, to);
  flush_folder(parent_of(to));
}

std::vector<std::filesystem::path> entries_of(const std::filesystem::path& folder, std::error_code& failed) {
  std::vector<std::filesystem::path> entries;
  // A loop over the iterator itself throws where the disk fails between two entries.
  for (std::filesystem::directory_iterator entry(folder, failed), end; !failed && entry != end; entry.increment(failed)) {
    entries.push_back(entry->path());
  }
  if (failed == std::errc::no_such_file_or_directory) failed.clear();
  std::sort(entries.begin(), entries.end());
  return entries;
}

std::vector<std::filesystem::path> entries_of(const std::filesystem::path& folder) {
  std::error_code ignored;
  return entries_of(folder, ignored);
}

std::optional<std::string> read_unless_absent(const std::filesystem::path& path) {
  const int opened = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (opened < 0 && errno == ENOENT) return std::nullopt;
  if (opened < 0) fail_io("opening", path, errno);
  const Descriptor file(opened);
  auto contents = read_to_the_end(file.value());
  if (contents.folder) {
    throw Error(ExitCode::configuration, fmt::format("{} is a folder, where a file is needed", path.string()));
  }
  if (contents.failure != 0) fail_io("reading", path, contents.failure);
  if (contents.endless) {
    throw Error(ExitCode::configuration, fmt::format("{} is a device or a pipe, and does not end within {} MiB; name a file",
                                                     path.string(), most_of_a_stream >> 20));
  }
  return std::move(contents.text);
}

std::string read_text(const std::filesystem::path& path) {
  auto text = kind_of_path(path) == PathKind::absent ? std::nullopt : read_unless_absent(path);
  if (!text) throw Error(ExitCode::configuration, fmt::format("there is no file {}", path.string()));
  return *std::move(text);
}

std::string read_if_there(const std::filesystem::path& path) noexcept {
  const int opened = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (opened < 0) return "";
  const Descriptor file(opened);
  try {
    auto contents = read_to_the_end(file.value());
    return contents.failure == 0 && !contents.endless ? std::move(contents.text) : "";
  } catch (const std::exception&) {
    return "";  // no memory for it
  }
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
  write_all(file.value(), bytes_of(line), std::nullopt, path);
  file.close(path);
}

std::optional<double> written_at(const std::filesystem::path& path) noexcept {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0) return std::nullopt;
  return static_cast<double>(facts.st_mtim.tv_sec) + 1e-9 * static_cast<double>(facts.st_mtim.tv_nsec);
}

FileLock FileLock::try_lock(const std::filesystem::path& path, Kind kind) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0) fail_io("opening the lock", path, errno);
  FileLock lock(descriptor);
  if (::flock(descriptor, (kind == Kind::shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0) return lock;
  if (errno != EWOULDBLOCK && errno != EINTR) {
    fail_io("locking (flock, which this disk may not offer: choose another)", path, errno);
  }
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

bool FileLock::still_named(const std::filesystem::path& path) const noexcept {
  struct stat locked {}, named {};
  if (::fstat(descriptor_, &locked) != 0 || ::stat(path.c_str(), &named) != 0) return false;
  return locked.st_dev == named.st_dev && locked.st_ino == named.st_ino;
}

void FileLock::write(std::string_view text) {
  if (::ftruncate(descriptor_, 0) != 0 || ::pwrite(descriptor_, text.data(), text.size(), 0) < 0) {
    fail_io("writing", "the lock file", errno);
  }
}

}  // namespace smlp
