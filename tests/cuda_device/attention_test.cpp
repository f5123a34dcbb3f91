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

// Both passes, of sequences long enough that a gradient is made of several blocks' sums.
class Attending {
 public:
  Attending() {
    const Shape shape{2, 1024, 4 * 64};
    for (std::uint64_t i = 0; i < 8; ++i) f_.emplace_back(shape, DType::bf16, 0, 0).randomize(i);
  }
  std::vector<double> by(Backend& backend) {
    const Attention call{f_[0].view(), f_[1].view(), f_[2].view(), f_[3].view(), log_sum_.view(), 4};
    backend.attention(call);
    backend.attention_backward(call, f_[4].view(), f_[5].view(), f_[6].view(), f_[7].view());
    backend.synchronize();
    std::vector<double> all;
    for (const std::size_t i : {3, 5, 6, 7}) {
      const auto values = f_[i].get();
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

 private:
  std::vector<Field> f_;
  Field log_sum_{{2, 4, 1024}, DType::f32, 0, 0};
};

// What a restarted run relies on, atomic sums would break.
TEST(DeviceAttention, GradientsHaveTheSameBitsEachTime) {
  const auto backend = make_cuda_backend();
  Attending attending;
  const auto first = attending.by(*backend);
  for (int run = 1; run < 10; ++run) ASSERT_EQ(attending.by(*backend), first) << "run " << run;
}

TEST(DeviceAttention, GradientsThatAreAddedUpInAnyOrderDifferByRoundingAlone) {
  Attending attending;
  const auto wanted = attending.by(*make_cuda_backend());
  expect_close("in any order", attending.by(*make_cuda_backend({.deterministic = false})), wanted, 2e-2);
}

}  // namespace
}  // namespace smlp::test
