// What the CPU backend keeps of products that it has computed.
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "tensor/backend.h"
#include "tests/tensor/field.h"

namespace smlp::test {
namespace {

std::int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::int64_t all = 0, resident = 0;
  statm >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// A primitive of 25 KB was kept for each number of rows that an expert ever had, as long as the run went on.
TEST(CpuProducts, KeepNoMemoryForEveryNumberOfRowsThatExpertsHad) {
#ifdef SMLP_SANITIZED
  GTEST_SKIP() << "a sanitizer keeps what was released";
#endif
  const auto backend = make_cpu_backend();
  constexpr std::int64_t most = 5000, settled = 2100, width = 8;
  Field x({most, width}, DType::f32), dy({most, width}, DType::f32), gradient({width, width}, DType::f32);
  x.randomize(1);
  dy.randomize(2);
  std::int64_t before = 0;
  for (std::int64_t rows = 1; rows <= most; ++rows) {
    if (rows == settled) before = resident_bytes();
    backend->matmul({.a = x.view().row_range(0, rows), .b = dy.view().row_range(0, rows), .out = gradient.view(), .transpose_a = true});
  }
  EXPECT_LT(resident_bytes() - before, std::int64_t{30} << 20);
}

}  // namespace
}  // namespace smlp::test
