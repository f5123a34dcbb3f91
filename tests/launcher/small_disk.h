// A disk that a test may fill.
#pragma once

#include <sys/mount.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

namespace smlp::test {

// A file system of 6 MB in memory over a folder, where one may be mounted.
class SmallDisk {
 public:
  explicit SmallDisk(std::filesystem::path folder)
      : folder_(std::move(folder)), mounted_(mount("tmpfs", folder_.c_str(), "tmpfs", 0, "size=6m") == 0) {}
  ~SmallDisk() {
    if (mounted_) umount2(folder_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }
  void fill() const {
    std::ofstream file(folder_ / "filler", std::ios::binary);
    for (const std::string block(4096, 'x'); file.write(block.data(), static_cast<std::streamsize>(block.size())).flush();) {
    }
  }
  void make_room() const { std::filesystem::remove(folder_ / "filler"); }

 private:
  std::filesystem::path folder_;
  bool mounted_;
};

}  // namespace smlp::test
