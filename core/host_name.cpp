#include "core/host_name.h"

#include <unistd.h>

#include <array>
#include <climits>
#include <cstdlib>

namespace smlp {

std::string host_name() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  gethostname(name.data(), HOST_NAME_MAX);
  return name.data();
}

std::string node_name() {
  const char* name = std::getenv("SLURMD_NODENAME");
  return name != nullptr && *name != '\0' ? name : host_name();
}

}  // namespace smlp
