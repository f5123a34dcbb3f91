// Folders as a failing network disk, or a live run, shows them: readdir(3) of this program is a test's to change. Link it
// into the test program itself; libstdc++'s iterators then call it, too.
#pragma once

#include <string>

namespace smlp::test {

// While it lives, one at a time.
class ChangedReaddir {
 public:
  // Reading any folder fails with ESTALE once so many entries were read ("." and ".." are among them).
  static ChangedReaddir failing_after(int entries) { return {entries, "", 0}; }
  // The next `times` folders that are read to their end hold this too, which is gone when it is looked at.
  static ChangedReaddir with_ghost(const std::string& name, int times) { return {-1, name, times}; }
  ~ChangedReaddir();
  ChangedReaddir(const ChangedReaddir&) = delete;
  ChangedReaddir& operator=(const ChangedReaddir&) = delete;

 private:
  ChangedReaddir(int entries, const std::string& ghost, int times);
};

}  // namespace smlp::test
