// First values of parameters, made on the host: each is a function of (seed, name, index in the whole
// tensor).
#pragma once

#include <cstdint>
#include <span>

#include "params/parameter_store.h"

namespace smlp {

class InitialValues {
 public:
  InitialValues(const ParameterSpec& spec, std::uint64_t seed);

  // Elements [first, first + out.size()) of the local slice: many are shared out among threads.
  void write(std::int64_t first, std::span<double> out) const;

 private:
  double value(std::int64_t global_index) const;

  const ParameterSpec& spec_;
  std::uint64_t key_;
  std::int64_t offset_;              // of the local slice in the whole tensor
  std::vector<double> orthonormal_;  // the whole tensor, where values depend on each other
};

}  // namespace smlp
