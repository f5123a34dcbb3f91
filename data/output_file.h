// A file being written under a temporary name beside its final one: buffered, removed again unless publish()
// is reached. Errors name the final file. Used by the writers of this room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

namespace smlp {

class OutputFile {
 public:
  explicit OutputFile(std::filesystem::path final_name);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* bytes, std::size_t count);
  template <class T>
  void put(const T& value) {
    write(&value, sizeof value);
  }
  void flush();    // what is buffered, to the operating system
  void sync();     // flush, and to the disk
  void publish();  // rename; call sync() before
  // Reads back what was flushed. Throws Error(io_failed) where it is not all there.
  void read(std::int64_t offset, void* bytes, std::size_t count) const;

 private:
  [[noreturn]] void fail(const char* what) const;

  std::filesystem::path final_name_, beside_;
  int descriptor_ = -1;
  std::vector<std::byte> buffer_;
};

}  // namespace smlp
