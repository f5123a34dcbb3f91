#include "tests/failing_read.h"

#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace {

std::int64_t good_bytes = -1;  // negative: all are

bool is_ordinary(int descriptor) {
  struct stat status{};
  return fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
}

}  // namespace

extern "C" ssize_t read(int descriptor, void* to, size_t count) {
  static const auto real = reinterpret_cast<ssize_t (*)(int, void*, size_t)>(dlsym(RTLD_NEXT, "read"));
  if (good_bytes >= 0 && is_ordinary(descriptor)) {
    const std::int64_t left = good_bytes - lseek(descriptor, 0, SEEK_CUR);
    if (left <= 0) {
      errno = EIO;
      return -1;
    }
    count = std::min(count, static_cast<size_t>(left));
  }
  return real(descriptor, to, count);
}

namespace smlp::test {

FailingRead::FailingRead(std::int64_t from) { good_bytes = from; }
FailingRead::~FailingRead() { good_bytes = -1; }

}  // namespace smlp::test
