// What this build can do.
#pragma once

namespace smlp {

bool built_with_cuda();  // with_cuda.cpp or without_cuda.cpp

}  // namespace smlp
