#include "core/features.h"

namespace smlp {

bool built_with_cuda() { return false; }

}  // namespace smlp
