#include "routing/balanced_router.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "core/random.h"

namespace smlp {
namespace {

struct Fixture {
  Fixture(std::int64_t experts, std::int64_t width, DType type = DType::f64)
      : router(store, "c", experts, width), width(width), type(type) {
    store.seal(*backend, type, 1);
  }
  ~Fixture() {
    for (void* block : blocks) backend->release(block);
  }

  TensorView random_rows(std::int64_t rows, std::uint64_t seed) {
    const RandomStream random(seed, "rows");
    std::vector<float> values(static_cast<std::size_t>(rows * width));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.normal(i));
    blocks.push_back(backend->allocate(rows * width * 4));
    const TensorView narrow(blocks.back(), {rows, width}, DType::f32);
    backend->upload(values.data(), narrow);
    blocks.push_back(backend->allocate(rows * width * size_of(type)));
    const TensorView x(blocks.back(), {rows, width}, type);
    backend->copy(narrow, x);
    return x;
  }
  std::vector<std::int32_t> slots_of(const RoutePlan& plan) {
    std::vector<std::int32_t> slots(static_cast<std::size_t>(plan.slots()));
    backend->download(plan.token_of_slot, slots.data());
    return slots;
  }
  std::vector<double> doubles_of(TensorView view) {
    std::vector<double> values(static_cast<std::size_t>(view.size()));
    const TensorView wide = scratch.take(view.shape, DType::f64);
    backend->copy(view, wide);
    backend->download(wide, values.data());
    return values;
  }

  std::unique_ptr<Backend> backend = make_cpu_backend();
  ParameterStore store;
  BalancedRouter router;
  Arena scratch{*backend};
  std::int64_t width;
  DType type;
  std::vector<void*> blocks;
};

TEST(BalancedRouter, TrainingSharesEveryGroupOutEvenly) {
  Fixture f(3, 8);
  RouteCall call{*f.backend, f.scratch, true, 10, {}};
  const TensorView x = f.random_rows(20, 1);  // two groups of 10: capacity 4 of 3 or 4 used
  const RoutePlan plan = f.router.plan(call, x);
  EXPECT_EQ(plan.rows_of_expert, (std::vector<std::int64_t>{8, 8, 8}));
  EXPECT_FALSE(plan.no_empty_slot);
  const auto slots = f.slots_of(plan);
  std::multiset<std::int32_t> seen;
  for (std::size_t e = 0; e < 3; ++e) {
    for (std::int32_t g = 0; g < 2; ++g) {
      int used = 0;
      for (std::size_t i = 0; i < 4; ++i) {
        const std::int32_t token = slots[(e * 2 + static_cast<std::size_t>(g)) * 4 + i];
        if (token < 0) continue;
        EXPECT_EQ(token / 10, g) << "a token left its group";
        seen.insert(token);
        ++used;
      }
      EXPECT_GE(used, 3);
    }
  }
  EXPECT_EQ(seen.size(), 20u);
  EXPECT_EQ(std::set<std::int32_t>(seen.begin(), seen.end()).size(), 20u);
  EXPECT_EQ(f.router.slots_of_group(true, 10), 4);
  EXPECT_FALSE(f.router.slots_of_group(false, 10).has_value());
}

TEST(BalancedRouter, AGroupIsRoutedAlikeWhoeverElseIsThere) {
  Fixture f(4, 8);
  const TensorView x = f.random_rows(36, 2);
  RouteCall both{*f.backend, f.scratch, true, 12, {}};
  const auto together = f.slots_of(f.router.plan(both, x));
  for (std::int64_t g = 0; g < 3; ++g) {
    RouteCall one{*f.backend, f.scratch, true, 12, {}};
    const auto apart = f.slots_of(f.router.plan(one, x.row_range(g * 12, 12)));
    for (std::size_t e = 0; e < 4; ++e) {
      for (std::size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(together[(e * 3 + static_cast<std::size_t>(g)) * 3 + i], apart[e * 3 + i] + g * 12);
      }
    }
  }
}

TEST(BalancedRouter, EvaluationTakesTheBestExpertAndWeighsBySigmoid) {
  for (const DType type : {DType::f64, DType::bf16}) {
    Fixture f(3, 8, type);
    RouteCall call{*f.backend, f.scratch, false, 0, {}};
    const TensorView x = f.random_rows(17, 3);
    const RoutePlan plan = f.router.plan(call, x);
    EXPECT_TRUE(plan.no_empty_slot);
    EXPECT_EQ(std::accumulate(plan.rows_of_expert.begin(), plan.rows_of_expert.end(), std::int64_t{0}), 17);
    EXPECT_EQ(plan.weight.dtype, type);
    const auto rows = f.doubles_of(x), centroids = f.doubles_of(f.store.find("c").value);
    const auto weights = f.doubles_of(plan.weight);
    const auto slots = f.slots_of(plan);
    std::size_t slot = 0;
    for (std::size_t e = 0; e < 3; ++e) {
      for (std::int64_t i = 0; i < plan.rows_of_expert[e]; ++i, ++slot) {
        std::vector<double> scores(3, 0);
        for (std::size_t other = 0; other < 3; ++other) {
          for (std::size_t c = 0; c < 8; ++c) {
            scores[other] += rows[static_cast<std::size_t>(slots[slot]) * 8 + c] * centroids[other * 8 + c];
          }
        }
        EXPECT_EQ(std::max_element(scores.begin(), scores.end()) - scores.begin(),
                  static_cast<std::ptrdiff_t>(e));
        EXPECT_NEAR(weights[slot], 1 / (1 + std::exp(-scores[e])), type == DType::f64 ? 1e-7 : 4e-3);
      }
    }
  }
}

TEST(BalancedRouter, AcceptsNoRowsAtAll) {
  Fixture f(3, 8);
  for (const bool training : {true, false}) {
    RouteCall call{*f.backend, f.scratch, training, 0, {}};
    const TensorView nothing = f.random_rows(1, 1).row_range(0, 0);
    const RoutePlan plan = f.router.plan(call, nothing);
    EXPECT_EQ(plan.slots(), 0);
    EXPECT_EQ(plan.rows_of_expert, (std::vector<std::int64_t>{0, 0, 0}));
    f.router.backward(call, plan, f.scratch.take({0}, DType::f64), nothing, nothing);
  }
}

}  // namespace
}  // namespace smlp
