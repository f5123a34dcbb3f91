#include "core/features.h"

namespace smlp {

bool built_with_cuda() { return true; }

}  // namespace smlp
