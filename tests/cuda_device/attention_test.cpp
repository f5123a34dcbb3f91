// Which attention a GPU has, and that it is the same each time.
#include <gtest/gtest.h>

#include <cstdio>
#include <utility>

#include "tensor/backend.h"
#include "tests/tensor/field.h"

namespace smlp::test {
namespace {

TEST(DeviceAttention, IsComputedInTwoWays) {
  for (const auto& [width, flash] : {std::pair{12, false}, {64, true}}) {
    const auto backend = make_cuda_backend();  // which tells of all its calls
    const Shape shape{2, 128, 2 * width};  // whole tiles, which any cuDNN takes
    Field q(shape, DType::bf16, 0, 0), out(shape, DType::bf16, 0, 0), log_sum({2, 2, 128}, DType::f32, 0, 0);
    q.randomize(1);
    backend->attention({q.view(), q.view(), q.view(), out.view(), log_sum.view(), 2});
    backend->synchronize();
    RecordProperty(flash ? "in_packs" : "not_in_packs", backend->attention_by());
#ifdef SMLP_TESTS_CUDNN
    const std::string wanted = flash ? "attention is computed by cuDNN" : "attention is computed by products";
    EXPECT_EQ(backend->attention_by().substr(0, wanted.size()), wanted) << backend->attention_by();
#endif
    std::printf("heads of %d channels: %s\n", width, backend->attention_by().c_str());
  }
}

// What a restarted run relies on, atomic sums would break.
TEST(DeviceAttention, GradientsHaveTheSameBitsEachTime) {
  const auto backend = make_cuda_backend();
  const Shape shape{2, 1024, 4 * 64};
  std::vector<Field> f;
  for (std::uint64_t i = 0; i < 8; ++i) f.emplace_back(shape, DType::bf16, 0, 0).randomize(i);
  Field log_sum({2, 4, 1024}, DType::f32, 0, 0);
  const Attention call{f[0].view(), f[1].view(), f[2].view(), f[3].view(), log_sum.view(), 4};
  std::vector<double> first;
  for (int run = 0; run < 10; ++run) {
    backend->attention(call);
    backend->attention_backward(call, f[4].view(), f[5].view(), f[6].view(), f[7].view());
    std::vector<double> all;
    for (const std::size_t i : {3, 5, 6, 7}) {
      const auto values = f[i].get();
      all.insert(all.end(), values.begin(), values.end());
    }
    if (run == 0) first = all;
    ASSERT_EQ(all, first) << "run " << run;
  }
}

}  // namespace
}  // namespace smlp::test
