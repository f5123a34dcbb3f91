#include "data/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace smlp {

MappedFile::MappedFile(const std::string& path) {
  const auto fail = [&](const char* what) {
    const int reason = errno;
    throw Error(reason == ENOENT ? ExitCode::configuration : ExitCode::io_failed,
                fmt::format("{} {} failed: {}", what, path, std::strerror(reason)));
  };
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);  // a pipe would be waited for
  if (descriptor < 0) fail("opening");
  struct stat facts {};
  void* address = nullptr;
  bool good = ::fstat(descriptor, &facts) == 0;
  if (good && S_ISREG(facts.st_mode) && facts.st_size > 0) {
    address = ::mmap(nullptr, static_cast<std::size_t>(facts.st_size), PROT_READ, MAP_SHARED, descriptor, 0);
    good = address != MAP_FAILED;
  }
  const int reason = errno;
  ::close(descriptor);
  errno = reason;
  if (!good) fail("mapping");
  if (!S_ISREG(facts.st_mode)) {
    throw Error(ExitCode::configuration, fmt::format("{} is not an ordinary file", path));
  }
  bytes_ = {static_cast<const std::byte*>(address), static_cast<std::size_t>(facts.st_size)};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace smlp
