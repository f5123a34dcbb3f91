// What this build can do.
#pragma once

namespace smlp {

bool built_with_cuda();  // with_cuda.cpp or without_cuda.cpp
bool built_with_nccl();  // with_nccl.cpp or without_nccl.cpp

}  // namespace smlp
