// How a device multiplies by expert: how many products a library is asked for, and what follows where it
// refuses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "core/error.h"
#include "tensor/backend.h"
#include "tensor/cuda/product_end.h"
#include "tensor/cuda/product_plan.h"
#include "tests/cuda_emulation/emulator.h"
#include "tests/tensor/field.h"

namespace smlp::test {
namespace {

using Rows = std::vector<std::int64_t>;
constexpr std::int64_t width = 16, hidden = 24;

class GroupedProducts : public testing::Test {
 protected:
  ~GroupedProducts() override {
    emulation::set_driver_error(0);
    emulation::refuse({});
  }

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
  struct Result {
    DType type;
    std::vector<double> values;
  };
  // By a backend of its own, which remembers what was refused.
  const auto all = [&](const emulation::Refusals& refusals) {
    emulation::refuse(refusals);
    b_ = make_cuda_backend();
    std::vector<Result> results;
    for (const Activation kind : {Activation::gelu_tanh, Activation::relu}) {
      for (const Rows& rows : {Rows{3, 0, 5, 1}, Rows{4, 4}}) {
        for (const DType type : {DType::f32, DType::bf16}) {
          Layer layer(type, rows, 0);
          forward(layer, rows, kind);
          input_gradient(layer, rows, kind);
          weight_gradient(layer, rows);
          b_->synchronize();
          for (Field* field : layer.results()) {
            EXPECT_TRUE(field->guards_intact());
            results.push_back({type, field->get()});
          }
        }
      }
    }
    return results;
  };
  const auto wanted = all({});
  for (const auto& refusals :
       {emulation::Refusals{.ends = true}, {.groups = true}, {true, true}, {true, true, true}, {.ends = true, .when_planned = true},
        {true, true, true, true}, {.algorithms = 1}, {.algorithms = 3}}) {
    const auto got = all(refusals);
    for (std::size_t i = 0; i < got.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "result " << i << " of " << name_of(got[i].type));
      expect_close("refused", got[i].values, wanted[i].values, got[i].type == DType::f32 ? 1e-5 : 2e-2);
    }
  }
}

// What each value leaves to the library, of a layer that has everything.
TEST_F(GroupedProducts, EndByWhomTheyAreToldTo) {
  struct Share {
    ProductEnds ends;
    std::int64_t forward, input, weight;  // products that the library ends
  };
  const Rows rows = {5, 5};
  for (const DType type : {DType::bf16, DType::f16}) {
    std::vector<std::vector<double>> wanted;
    for (const Share& share : {Share{ProductEnds::library, 1, 1, 1}, {ProductEnds::own_bias_gradient, 1, 1, 0},
                               {ProductEnds::own_gelu, 1, 0, 0}, {ProductEnds::own, 0, 0, 0}}) {
      SCOPED_TRACE(testing::Message() << name_of(type) << static_cast<int>(share.ends));
      b_ = make_cuda_backend({.product_ends = share.ends});
      Layer layer(type, rows, 0);
      const auto ended = [&](auto call) {
        const std::int64_t before = emulation::products_with_ends();
        EXPECT_EQ(call(), 1);
        return emulation::products_with_ends() - before;
      };
      EXPECT_EQ(ended([&] { return forward(layer, rows); }), share.forward);
      EXPECT_EQ(ended([&] { return input_gradient(layer, rows); }), share.input);
      EXPECT_EQ(ended([&] { return weight_gradient(layer, rows); }), share.weight);
      b_->synchronize();
      for (std::size_t i = 0; i < layer.results().size(); ++i) {
        EXPECT_TRUE(layer.results()[i]->guards_intact()) << i;
        if (share.ends == ProductEnds::library) wanted.push_back(layer.results()[i]->get());
        expect_close("a result", layer.results()[i]->get(), wanted[i], 2e-2);
      }
    }
  }
}

// The library has five for each (cublas_lt.cpp), of which the third, which splits sums, was not asked for.
TEST_F(GroupedProducts, GoOnWithTheNextAlgorithmUntilThereIsNone) {
  const Rows rows = {64};
  for (const auto& [refused, taken] : {std::pair{0, 0}, {1, 1}, {2, 3}, {3, 3}, {4, 4}, {5, -1}}) {
    b_ = make_cuda_backend();
    Layer layer(DType::bf16, rows, 0);
    for (const int still_refused : {refused, 0}) {  // what was refused is not tried again
      emulation::refuse({.algorithms = still_refused});
      EXPECT_EQ(forward(layer, rows), taken < 0 ? 0 : 1) << refused;
      if (taken >= 0) {
        EXPECT_EQ(emulation::last_algorithm(), taken) << refused;
      }
    }
  }
}

// Kernels are loaded when they are first called. All algorithms were given up for the rest of the run where there was no
// memory for one, and other kernels took their place without a word.
TEST_F(GroupedProducts, AreRefusedByNoLackOfMemory) {
  for (const Rows& rows : {Rows{3, 0, 5, 1}, Rows{5, 5}}) {
    Layer layer(DType::bf16, rows, 0);
    emulation::refuse({.for_memory = true});
    try {
      forward(layer, rows);
      ADD_FAILURE() << "goes on";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::unavailable);
      EXPECT_THAT(error.what(), testing::HasSubstr("out of memory on the GPU"));
      EXPECT_THAT(error.what(), testing::HasSubstr("a smaller micro-batch"));
    }
    emulation::refuse({});
    EXPECT_EQ(forward(layer, rows), 1) << "at once, as before";
  }
}

TEST_F(GroupedProducts, AreRefusedByNoFailureOfTheDevice) {
  const Rows rows = {3, 0, 5, 1}, equal = {5, 5};
  Layer layer(DType::bf16, rows, 0), other(DType::bf16, equal, 0);
  forward(layer, rows);
  forward(other, equal);
  emulation::refuse({true, true, true});
  emulation::set_driver_error(700);  // an illegal address, which every call tells from then on
  for (const auto& call : {std::function<void()>([&] { forward(layer, rows); }), {[&] { forward(other, equal); }}}) {
    try {
      call();
      ADD_FAILURE() << "goes on";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("work on the device failed: an error of the emulation"));
    }
  }
  emulation::set_driver_error(0);
  emulation::refuse({});
  EXPECT_EQ(forward(layer, rows), 1) << "at once, as before";
  EXPECT_EQ(forward(other, equal), 1);
}

// A plan's layouts and algorithms are of every size, stride, type, end and alignment that it was made for.
TEST(Products, OfDifferentKindsHavePlansOfTheirOwn) {
  alignas(16) static float memory[8];
  const auto set = [](auto member, auto value) { return [=](cuda::Product& p) { p.*member = value; }; };
  using P = cuda::Product;
  const std::vector<std::function<void(P&)>> changes = {
      [](P&) {}, set(&P::m, 9), set(&P::n, 9), set(&P::k, 9), set(&P::a_stride, 9), set(&P::b_stride, 9), set(&P::batch, 2),
      set(&P::a_apart, 9), set(&P::b_apart, 9), set(&P::out_apart, 9), set(&P::bias_apart, 9), set(&P::transpose_a, true),
      set(&P::transpose_b, true), set(&P::accumulate, true), set(&P::gelu, true), set(&P::gelu_gradient, true),
      set(&P::bias, memory), set(&P::bias, memory + 1), set(&P::bias_gradient, memory), set(&P::type, DType::bf16),
      set(&P::out_type, DType::f16), set(&P::a, memory + 1), set(&P::b, memory + 1), set(&P::scratch, memory + 1),
      [](P& p) { p.out.stride = 9; }, [](P& p) { p.out.data = memory + 1; }, [](P& p) { p.residual.data = memory; },
      [](P& p) { p.residual = {memory, 0, 0, 9}; }, [](P& p) { p.residual.data = memory + 1; },
      [](P& p) { p.pre_activation.data = memory; }, [](P& p) { p.pre_activation = {memory, 0, 0, 9}; },
      [](P& p) { p.pre_activation.data = memory + 1; }};
  std::set<cuda::ProductKind> kinds;
  for (const auto& change : changes) {
    P product{.m = 8, .n = 8, .k = 8, .a = memory, .b = memory, .a_stride = 8, .b_stride = 8, .out = {memory, 8, 8, 8}};
    change(product);
    EXPECT_TRUE(kinds.insert(cuda::kind_of(product)).second) << "change " << kinds.size();
  }
}

TEST(Products, AreSplitWhereNothingIsLostOfThem) {
  const float bias = 0;
  const cuda::Product f32{.k = 65}, whole{.k = 128, .type = DType::bf16, .out_type = DType::bf16};
  EXPECT_TRUE(cuda::library_may_split(f32));
  EXPECT_TRUE(cuda::library_may_split(whole));
  cuda::Product rest = whole, biased = whole, wide = whole;
  rest.k = 130;
  biased.bias = wide.bias = &bias;
  wide.out_type = DType::f32;
  EXPECT_FALSE(cuda::library_may_split(rest)) << "the last terms";
  EXPECT_FALSE(cuda::library_may_split(biased)) << "bits of the sums, before the bias";
  EXPECT_TRUE(cuda::library_may_split(wide));
}

// By own kernels, from numbers that lie on no more than their own size.
TEST_F(GroupedProducts, AreMultipliedWhereTheLibraryHasNoAlgorithm) {
  const auto refusing = make_cuda_backend();  // it remembers
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    for (int way = 0; way < 16; ++way) {
      const bool ta = way & 1, tb = way & 2, wide = way & 4, accumulate = way & 8;
      SCOPED_TRACE(testing::Message() << name_of(type) << way);
      constexpr std::int64_t m = 9, n = 13, k = 21;
      const auto run = [&](bool refused) {
        emulation::refuse({.products = refused});
        Backend& backend = refused ? *refusing : *b_;
        Field a(ta ? Shape{k, m} : Shape{m, k}, type, 3, 1), b(tb ? Shape{n, k} : Shape{k, n}, type, 1, 1);
        Field out({m, n}, wide ? DType::f32 : type, 1, 1);
        std::uint64_t seed = 0;
        for (Field* field : {&a, &b, &out}) field->randomize(++seed);
        backend.matmul({.a = a.view(),
                        .b = b.view(),
                        .out = out.view(),
                        .transpose_a = ta,
                        .transpose_b = tb,
                        .accumulate = accumulate});
        backend.synchronize();
        EXPECT_TRUE(out.guards_intact());
        return out.get();
      };
      expect_close("refused", run(true), run(false), type == DType::f32 || wide ? 1e-5 : 2e-2);
    }
  }
}

}  // namespace
}  // namespace smlp::test
