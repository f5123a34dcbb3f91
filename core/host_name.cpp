#include "core/host_name.h"

#include <unistd.h>

#include <array>
#include <climits>

namespace smlp {

std::string host_name() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  gethostname(name.data(), HOST_NAME_MAX);
  return name.data();
}

}  // namespace smlp
