#include "core/version.h"

namespace smlp {

const char* version() { return SMLP_VERSION; }

const char* compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#else
  return "GCC " __VERSION__;
#endif
}

}  // namespace smlp
