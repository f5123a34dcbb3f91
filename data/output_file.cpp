#include "data/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "core/files.h"
#include "data/output_lock.h"

namespace smlp {

namespace {
constexpr std::size_t buffer_bytes = 1 << 20;

std::filesystem::path unique_name(const std::filesystem::path& final_name) {
  static std::atomic<int> counter = 0;
  auto beside = final_name;
  beside += fmt::format(".{}-{}.tmp", ::getpid(), counter++);
  return beside;
}
}  // namespace

OutputFile::OutputFile(std::filesystem::path final_name)
    : final_name_(std::move(final_name)), beside_(unique_name(final_name_)) {
  if (final_name_.has_parent_path()) make_output_folder(final_name_.parent_path());
  descriptor_ = ::open(beside_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail("creating");
  buffer_.reserve(buffer_bytes);
}

OutputFile::~OutputFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(beside_.c_str());
}

void OutputFile::fail(const char* what) const {
  const int reason = errno;
  throw Error(ExitCode::io_failed, fmt::format("{} {} failed: {}; nothing of it is kept", what,
                                               final_name_.string(), std::strerror(reason)));
}

void OutputFile::write(const void* bytes, std::size_t count) {
  const auto* from = static_cast<const std::byte*>(bytes);
  if (buffer_.size() + count > buffer_bytes) flush();
  if (count > buffer_bytes) {
    while (count > 0) {
      const auto part = std::min(count, buffer_bytes);
      buffer_.assign(from, from + part);
      flush();
      from += part;
      count -= part;
    }
    return;
  }
  buffer_.insert(buffer_.end(), from, from + count);
}

void OutputFile::flush() {
  const std::byte* from = buffer_.data();
  std::size_t left = buffer_.size();
  while (left > 0) {
    const ssize_t written = ::write(descriptor_, from, left);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("writing");
    from += written;
    left -= static_cast<std::size_t>(written);
  }
  buffer_.clear();
}

void OutputFile::sync() {
  flush();
  if (::fsync(descriptor_) != 0) fail("flushing");
}

void OutputFile::publish() {
  rename_durably(beside_, final_name_);
  ::close(descriptor_);
  descriptor_ = -1;
}

void OutputFile::read(std::int64_t offset, void* bytes, std::size_t count) const {
  auto* to = static_cast<std::byte*>(bytes);
  std::size_t done = 0;
  while (done < count) {
    const ssize_t got =
        ::pread(descriptor_, to + done, count - done, offset + static_cast<std::int64_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = EIO;  // somebody has cut it
    if (got <= 0) fail("reading back");
    done += static_cast<std::size_t>(got);
  }
}

}  // namespace smlp
