// How a device multiplies by expert: how many products a library is asked for, and what follows where it
// refuses.
#include <gtest/gtest.h>

#include "tensor/backend.h"
#include "tests/cuda_emulation/emulator.h"
#include "tests/tensor/field.h"

namespace smlp::test {
namespace {

using Rows = std::vector<std::int64_t>;
constexpr std::int64_t width = 16, hidden = 24;

class GroupedProducts : public testing::Test {
 protected:
  ~GroupedProducts() override { emulation::refuse({}); }

  // A layer's forward and backward pass. `shift`: elements that the rows of tokens begin after an aligned
  // address.
  struct Layer {
    Field x, weight, bias, z, y, dy, dx, dweight, dbias;
    Layer(DType type, const Rows& rows, std::int64_t shift)
        : x(tokens(rows, width), type, 8, shift),
          weight({std::ssize(rows), hidden, width}, type, 0, 0),
          bias({std::ssize(rows), hidden}, type, 0, 0),
          z(tokens(rows, hidden), type, 0, 0),
          y(tokens(rows, hidden), type, 8, 0),
          dy(tokens(rows, hidden), type, 0, 0),
          dx(tokens(rows, width), type, 0, shift),
          dweight(weight.shape(), DType::f32, 0, 0),
          dbias(bias.shape(), DType::f32, 0, 0) {
      std::uint64_t seed = 0;
      for (Field* field : {&x, &weight, &bias, &dy, &dweight, &dbias}) field->randomize(++seed);
    }
    static Shape tokens(const Rows& rows, std::int64_t of_width) {
      std::int64_t all = 0;
      for (const std::int64_t some : rows) all += some;
      return {all, of_width};
    }
    std::vector<Field*> results() { return {&z, &y, &dx, &dweight, &dbias}; }
  };

  std::int64_t forward(Layer& l, const Rows& rows, Activation kind = Activation::gelu_tanh) {
    return counted([&] {
      b_->matmul_grouped({.a = l.x.view(),
                          .b = l.weight.view(),
                          .out = l.y.view(),
                          .transpose_b = true,
                          .bias = l.bias.view(),
                          .activation = kind,
                          .pre_activation = l.z.view()},
                         rows);
    });
  }
  std::int64_t input_gradient(Layer& l, const Rows& rows, Activation kind = Activation::gelu_tanh) {
    return counted([&] {
      b_->matmul_grouped({.a = l.dy.view(),
                          .b = l.weight.view(),
                          .out = l.dx.view(),
                          .activation = kind,
                          .pre_activation = l.x.view(),
                          .activation_backward = true},
                         rows);
    });
  }
  std::int64_t weight_gradient(Layer& l, const Rows& rows) {
    return counted([&] {
      b_->matmul_grouped({.a = l.dy.view(),
                          .b = l.x.view(),
                          .out = l.dweight.view(),
                          .transpose_a = true,
                          .accumulate = true,
                          .bias_gradient = l.dbias.view()},
                         rows);
    });
  }
  template <class Call>
  std::int64_t counted(Call call) {
    const std::int64_t before = emulation::products();
    call();
    return emulation::products() - before;
  }

  std::unique_ptr<Backend> b_ = make_cuda_backend();
};

TEST_F(GroupedProducts, OneForAllExpertsWithAsManyRows) {
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    const Rows rows = {5, 5, 5, 5};
    for (const std::int64_t shift : {0, 1}) {
      Layer layer(type, rows, shift);
      EXPECT_EQ(forward(layer, rows), 1);
      EXPECT_EQ(input_gradient(layer, rows), 1);
      EXPECT_EQ(weight_gradient(layer, rows), 1);
    }
  }
}

TEST_F(GroupedProducts, OneForRowsThatDifferWhereTheLibraryHasIt) {
  const Rows rows = {3, 0, 5, 1};
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    Layer layer(type, rows, 0);
    EXPECT_EQ(forward(layer, rows), 1);
    EXPECT_EQ(input_gradient(layer, rows), 1);
    EXPECT_EQ(weight_gradient(layer, rows), type == DType::f32 ? 1 : 3)
        << "gradients are f32, which it does not mix";
    Layer shifted(type, rows, 1);
    EXPECT_EQ(forward(shifted, rows), 3) << "not on 16 bytes";
    EXPECT_EQ(input_gradient(shifted, rows), 3);
  }
  const Rows one = {0, 4, 0}, none = {0, 0};
  Layer alone(DType::f32, one, 0), empty(DType::f32, none, 0);
  EXPECT_EQ(forward(alone, one), 1);
  EXPECT_EQ(weight_gradient(alone, one), 1);
  EXPECT_EQ(forward(empty, none) + weight_gradient(empty, none), 0);
}

TEST_F(GroupedProducts, GiveTheSameWhateverTheLibraryRefuses) {
  for (const Activation kind : {Activation::gelu_tanh, Activation::relu}) {
    for (const Rows& rows : {Rows{3, 0, 5, 1}, Rows{4, 4}}) {
      for (const DType type : {DType::f32, DType::bf16}) {
        const auto run = [&](const emulation::Refusals& refusals) {
          emulation::refuse(refusals);
          Layer layer(type, rows, 0);
          forward(layer, rows, kind);
          input_gradient(layer, rows, kind);
          weight_gradient(layer, rows);
          b_->synchronize();
          return layer;
        };
        Layer wanted = run({});
        for (const auto& refusals : {emulation::Refusals{.ends = true}, {.groups = true}, {true, true}}) {
          Layer got = run(refusals);
          for (std::size_t i = 0; i < got.results().size(); ++i) {
            SCOPED_TRACE(testing::Message() << "result " << i << " of " << name_of(type));
            expect_close("refused", got.results()[i]->get(), wanted.results()[i]->get(),
                         type == DType::f32 ? 1e-5 : 2e-2);
            EXPECT_TRUE(got.results()[i]->guards_intact());
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace smlp::test
