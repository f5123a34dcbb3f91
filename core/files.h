// Files that are whole or not there: small helpers over POSIX with sentences for errors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace smlp {

// What is at the end of a path, links followed. Error(io_failed) where the disk does not say: what can't be looked at is not
// absent.
enum class PathKind { absent, file, folder, other };
PathKind kind_of_path(const std::filesystem::path& path);

// Error(configuration) when it is missing, a folder, or a device or pipe of more than 64 MiB; io_failed otherwise.
std::string read_text(const std::filesystem::path& path);
// The same for a file that need not be there: nullopt. One that can't be read is not one that is absent.
std::optional<std::string> read_unless_absent(const std::filesystem::path& path);
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
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);  // rename, fsync the folder

// What a folder holds, by name, as far as it can be read; `failed` says why not to its end. An absent one holds nothing.
std::vector<std::filesystem::path> entries_of(const std::filesystem::path& folder, std::error_code& failed);
std::vector<std::filesystem::path> entries_of(const std::filesystem::path& folder);  // where the rest does not matter

// What the above are made of: single operations, whose sentences name file and reason.
void write_all(int descriptor, std::span<const std::byte> bytes, std::optional<std::int64_t> position,
               const std::filesystem::path& path);  // nullopt: where the descriptor stands
void move_path(const std::filesystem::path& from, const std::filesystem::path& to);  // rename(2)
void flush_folder(const std::filesystem::path& path);  // fsync; no error where this disk can't do that to folders
std::filesystem::path parent_of(const std::filesystem::path& path);  // "." where it names none
// Throws Error(io_failed): "opening runs/a failed: Permission denied; give this user the right to do so".
[[noreturn]] void fail_io(std::string_view doing, const std::filesystem::path& path, int reason);

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
  // Is the locked file still the one of that name? One whose holder removes it may have been opened before it went.
  bool still_named(const std::filesystem::path& path) const noexcept;
  void write(std::string_view text);  // replaces the contents: who holds it

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

}  // namespace smlp
