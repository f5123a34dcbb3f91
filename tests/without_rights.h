// Root reads everything: while one of these lives, this process is nobody, whom a file of mode 000 keeps out.
#pragma once

#include <unistd.h>

#include <exception>
#include <filesystem>
#include <stdexcept>

namespace smlp::test {

constexpr auto readable_by_all = std::filesystem::perms::owner_all | std::filesystem::perms::group_read |
                                 std::filesystem::perms::group_exec | std::filesystem::perms::others_read |
                                 std::filesystem::perms::others_exec;

class WithoutRights {
 public:
  WithoutRights() : before_(::geteuid()) {
    if (before_ == 0 && ::seteuid(65534) != 0) throw std::runtime_error("root can't become anybody else");
  }
  ~WithoutRights() {
    if (before_ == 0 && ::seteuid(before_) != 0) std::terminate();
  }
  WithoutRights(const WithoutRights&) = delete;
  WithoutRights& operator=(const WithoutRights&) = delete;

 private:
  uid_t before_;
};

}  // namespace smlp::test
