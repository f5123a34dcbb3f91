// The value-parameterized fixture of the CPU backend's tests: one body for every type and instruction set.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "tensor/backend.h"
#include "tests/tensor/field.h"

namespace smlp::test {

struct CpuCase {
  DType type;
  std::string isa;
};

inline std::vector<CpuCase> cpu_cases() {
  std::vector<CpuCase> cases;
  for (const char* isa : {"baseline", "avx2", "avx512"}) {
    try {
      make_cpu_backend({.threads = 1, .isa = isa});
    } catch (const Error&) {
      continue;  // this processor has it not
    }
    for (const DType type : {DType::f64, DType::f32, DType::bf16}) cases.push_back({type, isa});
  }
  return cases;
}

inline std::string case_name(const testing::TestParamInfo<CpuCase>& info) {
  return std::string(name_of(info.param.type)) + "_" + info.param.isa;
}

class CpuVerbs : public testing::TestWithParam<CpuCase> {
 protected:
  using Values = std::vector<double>;

  DType type() const { return GetParam().type; }
  DType wide() const { return type() == DType::bf16 ? DType::f32 : type(); }
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

  std::unique_ptr<Backend> backend_ = make_cpu_backend({.threads = 1, .isa = GetParam().isa});
  Backend& b_ = *backend_;
};

}  // namespace smlp::test
