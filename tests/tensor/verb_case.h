// The value-parameterized fixture of the tests of verbs: one body for every type, instruction set and device.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "tensor/backend.h"
#include "tests/tensor/field.h"

namespace smlp::test {

struct VerbCase {
  DType type;
  std::string backend;  // "avx2"
  std::function<std::unique_ptr<Backend>()> make;
  DType refused;  // a type that this backend does not compute in
};

// Of the program: cpu_cases.cpp, or tests/cuda_emulation/cases.cpp.
std::vector<VerbCase> verb_cases();

inline std::string case_name(const testing::TestParamInfo<VerbCase>& info) {
  return std::string(name_of(info.param.type)) + "_" + info.param.backend;
}

class Verbs : public testing::TestWithParam<VerbCase> {
 protected:
  using Values = std::vector<double>;

  DType type() const { return GetParam().type; }
  bool narrow() const { return size_of(type()) == 2; }
  DType wide() const { return narrow() ? DType::f32 : type(); }
  // Of a result stored in the values' type: the rounding of its last store and f32 sums of a few hundred terms.
  double tolerance() const { return type() == DType::f64 ? 1e-12 : type() == DType::f32 ? 5e-6 : 6e-3; }
  // Of a result stored in the wide type.
  double wide_tolerance() const { return type() == DType::f64 ? 1e-12 : 2e-5; }

  Field values(Shape shape, std::uint64_t seed, double scale = 1, std::int64_t gap = 0) const {
    Field field(shape, type(), gap, static_cast<std::int64_t>(seed % 3));
    field.randomize(seed, scale);
    return field;
  }

  void check(const char* what, const Field& got, const Values& wanted, bool is_wide = false) const {
    expect_close(what, got.get(), wanted, is_wide ? wide_tolerance() : tolerance());
    EXPECT_TRUE(got.guards_intact()) << what;
  }

  // The call and what it set off: a device says what was wrong when it is waited for.
  template <class Call>
  void finished(Call call) {
    call();
    b_.synchronize();
  }

  std::unique_ptr<Backend> backend_ = GetParam().make();
  Backend& b_ = *backend_;
};

}  // namespace smlp::test
