// What kernels of every device see of a view.
#pragma once

#include <cstdint>

namespace smlp {

// Rows of adjacent elements, `stride` elements apart. No member functions: see tensor/cpu/kernels.h.
struct Matrix {
  void* data;
  std::int64_t rows, width, stride;
};

}  // namespace smlp
