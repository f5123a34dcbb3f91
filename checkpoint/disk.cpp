#include "checkpoint/disk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <utility>

#include "checkpoint/disk_watch.h"
#include "core/error.h"

namespace smlp {

namespace fs = std::filesystem;

std::atomic<FaultPoint> fault_point = nullptr;

namespace {

void before(const char* operation) {
  disk_answered();
  if (const auto fault = fault_point.load(std::memory_order_relaxed)) fault(operation);
}

[[noreturn]] void fail(std::string_view doing, const fs::path& path) { fail_io(doing, path, errno); }

[[noreturn]] void fail_to_read(std::string_view doing, const fs::path& path) {
  const int reason = errno;
  if (!is_damage(std::error_code(reason, std::generic_category()))) fail_io(doing, path, reason);
  throw Error(ExitCode::bad_data, fmt::format("{} {} failed: {}", doing, path.string(), std::strerror(reason)));
}

}  // namespace

DiskFile::DiskFile(const fs::path& path, int flags)
    : path_(path), descriptor_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {}

DiskFile DiskFile::create(const fs::path& path) {
  before("create file");
  DiskFile file(path, O_WRONLY | O_CREAT | O_TRUNC);
  if (file.descriptor_ < 0) fail("creating", path);
  return file;
}

DiskFile DiskFile::open(const fs::path& path) {
  DiskFile file(path, O_RDONLY);
  if (file.descriptor_ < 0) fail_to_read("opening", path);
  return file;
}

DiskFile::DiskFile(DiskFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

DiskFile& DiskFile::operator=(DiskFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

DiskFile::~DiskFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::int64_t DiskFile::size() const {
  struct stat facts {};
  if (::fstat(descriptor_, &facts) != 0) fail("asking for the size of", path_);
  return facts.st_size;
}

void DiskFile::reserve(std::int64_t bytes) {
  before("reserve space");
  if (bytes == 0 || ::fallocate(descriptor_, 0, 0, bytes) == 0) return;
  const int reason = errno;
  if (reason == ENOSPC || reason == EDQUOT || reason == EFBIG) {
    fail_io(fmt::format("reserving {} bytes for", bytes), path_, reason);
  }  // anything else: this disk doesn't know reservations
}

void DiskFile::write_at(std::span<const std::byte> bytes, std::int64_t position) {
  before("write");
  write_all(descriptor_, bytes, position, path_);
}

void DiskFile::read_at(std::span<std::byte> bytes, std::int64_t position) const {
  disk_answered();
  while (!bytes.empty()) {
    const ssize_t n = ::pread(descriptor_, bytes.data(), bytes.size(), position);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_to_read(fmt::format("reading {} bytes at {} of", bytes.size(), position), path_);
    if (n == 0) {
      throw Error(ExitCode::bad_data,
                  fmt::format("{} ends at byte {}: it was cut off", path_.string(), position));
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    position += n;
  }
}

void DiskFile::will_read_in_order() const { ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_SEQUENTIAL); }

void DiskFile::sync() {
  before("sync file");
  if (::fsync(descriptor_) != 0) fail("flushing to disk", path_);
}

void DiskFile::close() {
  before("close file");
  if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) fail("closing", path_);
}

bool is_damage(std::error_code reason) {
  if (reason.category() != std::generic_category() && reason.category() != std::system_category()) return true;
  constexpr std::array something_else = {ENOENT, ENOTDIR, EISDIR, ELOOP, ENAMETOOLONG, ENXIO, ENOTSUP};
  return std::ranges::find(something_else, reason.value()) != something_else.end();
}

bool is_damage(const std::exception& error) {
  if (const auto* known = dynamic_cast<const Error*>(&error)) return known->code() != ExitCode::io_failed;
  if (const auto* system = dynamic_cast<const std::system_error*>(&error)) return is_damage(system->code());
  return dynamic_cast<const std::bad_alloc*>(&error) == nullptr;
}

bool is_shut(const fs::path& folder) noexcept {
  return ::faccessat(AT_FDCWD, folder.c_str(), R_OK | X_OK, AT_EACCESS) != 0 && errno == EACCES;
}

std::string sentence_of(const std::exception& error) {
  return dynamic_cast<const std::bad_alloc*>(&error) == nullptr ? error.what() : out_of_memory;
}

BlockStream::BlockStream(DiskFile& file, std::stop_token stop)
    : file_(file), stop_(std::move(stop)), block_(std::make_unique_for_overwrite<std::byte[]>(block_bytes)) {}

void BlockStream::put(std::span<const std::byte> block) {
  if (stop_.stop_requested()) throw WritingStopped();
  file_.write_at(block, written_);
  written_ += static_cast<std::int64_t>(block.size());
}

void BlockStream::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (filled_ == 0 && bytes.size() >= block_bytes) {
      put(bytes.first(block_bytes));
      bytes = bytes.subspan(block_bytes);
      continue;
    }
    const auto part = std::min(bytes.size(), block_bytes - filled_);
    std::memcpy(block_.get() + filled_, bytes.data(), part);
    filled_ += part;
    bytes = bytes.subspan(part);
    if (filled_ == block_bytes) flush();
  }
}

void BlockStream::flush() {
  const auto filled = std::exchange(filled_, 0);
  if (filled > 0) put({block_.get(), filled});
}

void make_folder(const fs::path& path) {
  before("make folder");
  std::error_code error;
  const bool made = fs::create_directories(path, error);
  if (error) fail_io("making the folder", path, error.value());
  if (made) sync_folder(parent_of(path));
}

void write_file(const fs::path& path, std::string_view bytes) {
  auto file = DiskFile::create(path);
  file.write_at(std::as_bytes(std::span(bytes)), 0);
  file.sync();
  file.close();
}

void rename_path(const fs::path& from, const fs::path& to) {
  before("rename");
  move_path(from, to);
}

bool exchange_paths(const fs::path& a, const fs::path& b) {
  before("exchange");
  return ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
}

void remove_file(const fs::path& path) {
  before("remove file");
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) fail("removing", path);
}

void remove_folder(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(fs::symlink_status(path, error))) return remove_file(path);  // also a link to a folder
  for (const auto& entry : entries_of(path)) remove_folder(entry);
  before("remove folder");
  if (::rmdir(path.c_str()) != 0 && errno != ENOENT) fail("removing the folder", path);
}

bool remove_if_empty(const fs::path& path) noexcept { return ::rmdir(path.c_str()) == 0; }

void sync_folder(const fs::path& path) {
  before("sync folder");
  flush_folder(path);
}

}  // namespace smlp
