// Where the golden models are rehearsed: in a type, on a backend.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tensor/backend.h"

namespace smlp::test {

struct GoldenCase {
  DType type;
  std::string backend;  // "cpu"
  std::function<std::unique_ptr<Backend>()> make;
};

// Of the program: cpu_cases.cpp, or tests/cuda_emulation/golden_cases.cpp.
std::vector<GoldenCase> golden_cases();

}  // namespace smlp::test
