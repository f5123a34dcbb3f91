// Files that are whole or not there: small helpers over POSIX with sentences for errors.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace smlp {

// Error(configuration) when it is missing, a folder, or a device or pipe of more than 64 MiB; io_failed otherwise.
std::string read_text(const std::filesystem::path& path);
// The same for what may be gone or going, as /proc files are: "" when it can't be read.
std::string read_if_there(const std::filesystem::path& path) noexcept;
// Writes beside, fsyncs, renames over `path`, fsyncs the folder: readers see the old file or the new one, whole.
void write_durably(const std::filesystem::path& path, std::string_view text);
// The same without fsync, for what may be lost in a power cut (heartbeats, targets.json).
void write_atomically(const std::filesystem::path& path, std::string_view text);
// One write(2) of text and a newline with O_APPEND: lines of several processes don't mix, and none is glued to the half
// line that a crash left.
void append_line(const std::filesystem::path& path, std::string_view text);
// When it was last written, in seconds since 1970; nullopt when it is not there.
std::optional<double> written_at(const std::filesystem::path& path) noexcept;
void sync_file(const std::filesystem::path& path);    // fsync; folders too
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);  // rename, fsync the folder

// Advisory lock (flock) on a file, created when absent; released by the destructor or the death of the process.
class FileLock {
 public:
  enum class Kind { shared, exclusive };
  static FileLock none() { return FileLock(-1); }
  // Not taken: held() is false.
  static FileLock try_lock(const std::filesystem::path& path, Kind kind);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  ~FileLock();
  bool held() const noexcept { return descriptor_ >= 0; }
  void write(std::string_view text);  // replaces the contents: who holds it

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

}  // namespace smlp
