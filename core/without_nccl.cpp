#include "core/features.h"

namespace smlp {

bool built_with_nccl() { return false; }

}  // namespace smlp
