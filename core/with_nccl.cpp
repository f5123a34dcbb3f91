#include "core/features.h"

namespace smlp {

bool built_with_nccl() { return true; }

}  // namespace smlp
