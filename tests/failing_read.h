// Files as a disk with a bad spot shows them: read(2) of this program is a test's to change. Link it into the test program
// itself; libstdc++'s streams then call it, too.
#pragma once

#include <cstdint>

namespace smlp::test {

// While one lives, reading any ordinary file fails with EIO from this byte on.
class FailingRead {
 public:
  explicit FailingRead(std::int64_t from);
  ~FailingRead();
  FailingRead(const FailingRead&) = delete;
  FailingRead& operator=(const FailingRead&) = delete;
};

}  // namespace smlp::test
