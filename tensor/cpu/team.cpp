#include "tensor/cpu/team.h"

namespace smlp::cpu {

// Always all threads: OpenMP ends those that a smaller team leaves out, and has to start them again.
void Team::run(std::int64_t parts, void (*part)(const void* call, std::int64_t i), const void* call) const {
#pragma omp parallel for num_threads(threads_) schedule(static, 1)
  for (std::int64_t i = 0; i < parts; ++i) part(call, i);
}

}  // namespace smlp::cpu
