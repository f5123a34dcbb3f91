// What a checkpoint does to the disk, operation by operation: throwing wrappers over POSIX whose sentences
// name file and reason. HDF5 itself never touches the disk (docs/decisions/0002), so this is all there is; core/files.h
// has what needs no fault point.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>

#include "core/files.h"

namespace smlp {

// For tests: called before every operation that changes the disk. It may end the process or throw.
using FaultPoint = void (*)(const char* operation);
extern std::atomic<FaultPoint> fault_point;

class DiskFile {
 public:
  static DiskFile create(const std::filesystem::path& path);  // new or emptied
  static DiskFile open(const std::filesystem::path& path);    // to read; Error(bad_data) where is_damage()
  DiskFile(DiskFile&& other) noexcept;
  DiskFile& operator=(DiskFile&& other) noexcept;
  ~DiskFile();

  const std::filesystem::path& path() const { return path_; }
  std::int64_t size() const;
  void reserve(
      std::int64_t bytes);  // disk full shows here, before anything is written, where the disk can tell
  void write_at(std::span<const std::byte> bytes, std::int64_t position);
  void read_at(std::span<std::byte> bytes, std::int64_t position) const;  // all of it, or Error(bad_data)
  void will_read_in_order() const;
  void sync();
  void close();  // a network disk may report a failed write only here

 private:
  DiskFile(const std::filesystem::path& path, int flags);  // may have failed
  std::filesystem::path path_;
  int descriptor_ = -1;
};

// Whether trouble with reading says that what lies there is not what was written (it is absent, another thing, cut off).
// Else it says nothing of it: a disk that fails, too few descriptors, too little memory, a missing right.
bool is_damage(std::error_code reason);
bool is_damage(const std::exception& error);
// A folder whose rights keep this user out: no trouble that passes by itself, and no damage.
bool is_shut(const std::filesystem::path& folder) noexcept;
std::string sentence_of(const std::exception& error);  // also of one whose what() is none

// Thrown between two blocks when the writer is told to give up.
struct WritingStopped {};

// Writes a file from front to back in large blocks, each at a multiple of its size.
class BlockStream {
 public:
  static constexpr std::size_t block_bytes = std::size_t{1} << 20;
  BlockStream(DiskFile& file, std::stop_token stop);
  void write(std::span<const std::byte> bytes);
  void flush();  // what is left in the last, partial block
  std::int64_t position() const { return written_ + static_cast<std::int64_t>(filled_); }

 private:
  void put(std::span<const std::byte> block);
  DiskFile& file_;
  std::stop_token stop_;
  std::unique_ptr<std::byte[]> block_;
  std::size_t filled_ = 0;
  std::int64_t written_ = 0;
};

void make_folder(const std::filesystem::path& path);  // with its parents; no error when it is there
void write_file(const std::filesystem::path& path, std::string_view bytes);  // create, write, sync, close
void rename_path(const std::filesystem::path& from, const std::filesystem::path& to);
bool exchange_paths(const std::filesystem::path& a, const std::filesystem::path& b);  // false: the disk can't
void remove_file(const std::filesystem::path& path);                                  // no error when absent
// With what is in it, but not with what links in it, or the path itself, lead to; no error when absent. A file goes too.
void remove_folder(const std::filesystem::path& path);
bool remove_if_empty(const std::filesystem::path& path) noexcept;
void sync_folder(const std::filesystem::path& path);

}  // namespace smlp
