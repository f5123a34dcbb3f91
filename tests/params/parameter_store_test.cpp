#include "params/parameter_store.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <span>

#include "core/error.h"
#include "params/initial.h"

namespace smlp {
namespace {

std::vector<double> values_of(Backend& backend, const TensorView& view) {
  std::vector<double> values(static_cast<std::size_t>(view.size()));
  if (view.dtype == DType::f64) {
    backend.download(view, values.data());
    return values;
  }
  void* memory = backend.allocate(view.size() * 8);
  const TensorView wide(memory, view.shape, DType::f64);
  backend.copy(view, wide);
  backend.download(wide, values.data());
  backend.release(memory);
  return values;
}

ParameterSpec named(const std::string& name, Shape shape, Initial initial = Initial::uniform(0.5)) {
  return {.name = name, .shape = shape, .initial = initial};
}

TEST(ParameterStore, LaysOutOneSegmentForEachTreatment) {
  const auto backend = make_cpu_backend();
  ParameterStore store;
  store.add(named("a", {3, 5}));
  ParameterSpec bias = named("b", {7}, Initial::ones());
  bias.decay = false;
  store.add(bias);
  store.add(named("c", {65}));
  ParameterSpec expert = named("e", {2, 3});
  expert.placement = Placement::expert;
  expert.shards = 4;
  store.add(expert);
  store.seal(*backend, DType::bf16, 1);

  ASSERT_EQ(store.segments().size(), 3u);
  const Segment& first = store.segments()[0];
  EXPECT_EQ(first.value.size(), 64 + 128);
  EXPECT_EQ(first.value.dtype, DType::bf16);
  EXPECT_EQ(first.grad.dtype, DType::f32);
  EXPECT_EQ(store.find("c").offset, 64);
  EXPECT_EQ(store.find("c").value.data, first.value.at(64));
  EXPECT_EQ(store.find("c").grad.data, first.grad.at(64));
  EXPECT_FALSE(store.segments()[1].decay);
  EXPECT_EQ(store.segments()[2].placement, Placement::expert);
  EXPECT_EQ(store.find("e").global_shape(), (Shape{8, 3}));
  EXPECT_EQ(store.count_global(), 15 + 7 + 65 + 24);
  EXPECT_EQ(store.count_global(Placement::expert), 24);

  const auto flat = values_of(*backend, first.value);
  for (std::size_t i = 15; i < 64; ++i) EXPECT_EQ(flat[i], 0) << "padding";
  store.zero_grad(*backend);
  for (const double g : values_of(*backend, first.grad)) EXPECT_EQ(g, 0);
  EXPECT_THROW(store.add(named("late", {1})), std::exception);
  EXPECT_THROW(store.find("nobody"), std::exception);
}

TEST(ParameterStore, CutsWhatLiesBetweenMembersIntoEqualParts) {
  const auto backend = make_cpu_backend();
  for (const auto& [parts, alignment] : {std::pair{1, 64}, {2, 64}, {3, 192}, {8, 64}, {16, 128}, {1000, 8000}}) {
    ParameterStore store;
    store.add(named("a", {3, 5}));
    store.add(named("b", {alignment}));
    store.add(named("c", {alignment + 1}));
    store.seal(*backend, DType::f32, 1, true, parts);
    EXPECT_EQ(store.find("b").offset, alignment) << parts;
    EXPECT_EQ(store.find("c").offset, 2 * alignment);
    EXPECT_EQ(store.segments()[0].value.size(), 4 * alignment);
    EXPECT_EQ(store.aligned(alignment), alignment);
    EXPECT_EQ(store.aligned(alignment + 1), 2 * alignment);
    EXPECT_EQ(alignment % (8 * parts), 0);
  }
}

TEST(ParameterStore, RefusesANameTwice) {
  ParameterStore store;
  store.add(named("a", {1}));
  EXPECT_THROW(store.add(named("a", {2})), std::exception);
}

TEST(ParameterStore, FirstValuesDoNotDependOnHowATensorIsSliced) {
  const auto backend = make_cpu_backend();
  for (const Initial& initial :
       {Initial::uniform(0.5), Initial::normal(2), Initial::orthonormal_rows(0.1), Initial::ones()}) {
    ParameterStore whole;
    whole.add(named("w", {6, 9}, initial));
    whole.seal(*backend, DType::f64, 3);
    const auto all = values_of(*backend, whole.find("w").value);
    for (std::int64_t shard = 0; shard < 3; ++shard) {
      ParameterStore sliced;
      ParameterSpec spec = named("w", {2, 9}, initial);
      spec.shard = shard;
      spec.shards = 3;
      sliced.add(named("other", {5}));
      sliced.add(spec);
      sliced.seal(*backend, DType::f64, 3);
      const auto part = values_of(*backend, sliced.find("w").value);
      EXPECT_EQ(part, std::vector<double>(all.begin() + shard * 18, all.begin() + (shard + 1) * 18));
    }
  }
}

TEST(InitialValues, DoNotDependOnHowManyThreadsDrawThem) {
  const ParameterSpec spec = named("w", {523, 601}, Initial::normal(1));
  const InitialValues initial(spec, 7);
  std::vector<double> at_once(static_cast<std::size_t>(spec.shape.size())), by_rows(at_once.size());
  initial.write(0, at_once);
  for (std::size_t first = 0; first < by_rows.size(); first += 601) {
    initial.write(static_cast<std::int64_t>(first), std::span(by_rows).subspan(first, 601));
  }
  EXPECT_EQ(at_once, by_rows);
}

TEST(ParameterStore, FirstValuesFollowSeedAndName) {
  const auto backend = make_cpu_backend();
  const auto make = [&](const std::string& name, std::uint64_t seed) {
    ParameterStore store;
    store.add(named(name, {100}));
    store.seal(*backend, DType::f64, seed);
    return values_of(*backend, store.find(name).value);
  };
  EXPECT_EQ(make("a", 1), make("a", 1));
  EXPECT_NE(make("a", 1), make("a", 2));
  EXPECT_NE(make("a", 1), make("b", 1));
}

TEST(ParameterStore, FirstValuesHaveTheDistributionAskedFor) {
  const auto backend = make_cpu_backend();
  ParameterStore store;
  store.add(named("uniform", {300, 1000}, Initial::uniform(0.5)));
  store.add(named("normal", {300, 1000}, Initial::normal(2)));
  store.add(named("xavier", {4, 2}, Initial::xavier(4, 2)));
  store.seal(*backend, DType::f32, 1);
  const auto moments = [&](const char* name) {
    double mean = 0, square = 0, most = 0;
    const auto values = values_of(*backend, store.find(name).value);
    for (const double v : values) {
      mean += v / static_cast<double>(values.size());
      square += v * v / static_cast<double>(values.size());
      most = std::max(most, std::abs(v));
    }
    return std::array{mean, square, most};
  };
  const auto uniform = moments("uniform"), normal = moments("normal");
  EXPECT_NEAR(uniform[0], 0, 3e-3);
  EXPECT_NEAR(uniform[1], 0.25 / 3, 1e-3);
  EXPECT_NEAR(uniform[2], 0.5, 1e-4);
  EXPECT_LE(uniform[2], 0.5);
  EXPECT_NEAR(normal[0], 0, 0.02);
  EXPECT_NEAR(normal[1], 4, 0.05);
  EXPECT_LE(moments("xavier")[2], 1.0);
}

TEST(ParameterStore, OrthonormalRowsAre) {
  const auto backend = make_cpu_backend();
  ParameterStore store;
  store.add(named("c", {7, 12}, Initial::orthonormal_rows(0.1)));
  store.seal(*backend, DType::f64, 1);
  const auto values = values_of(*backend, store.find("c").value);
  for (std::size_t a = 0; a < 7; ++a) {
    for (std::size_t b = 0; b < 7; ++b) {
      double dot = 0;
      for (std::size_t i = 0; i < 12; ++i) dot += values[a * 12 + i] * values[b * 12 + i];
      EXPECT_NEAR(dot, a == b ? 0.01 : 0, 1e-15);
    }
  }
}

TEST(ParameterStore, NarrowTypesAreTheRoundedWideOnes) {
  const auto backend = make_cpu_backend();
  const auto make = [&](DType type) {
    ParameterStore store;
    store.add(named("a", {700, 1000}));  // more than is made at once
    store.seal(*backend, type, 1);
    return values_of(*backend, store.find("a").value);
  };
  const auto wide = make(DType::f64), single = make(DType::f32), narrow = make(DType::bf16);
  for (std::size_t i = 0; i < wide.size(); i += 997) {
    EXPECT_EQ(single[i], static_cast<double>(static_cast<float>(wide[i])));
    EXPECT_NEAR(narrow[i], wide[i], std::abs(wide[i]) / 256);
  }
}

TEST(ParameterStore, UpperTrianglesStartAtZero) {
  const auto backend = make_cpu_backend();
  ParameterStore store;
  ParameterSpec spec = named("s", {2, 3, 3});
  spec.lower_triangle = true;
  store.add(spec);
  store.seal(*backend, DType::f64, 1);
  const auto values = values_of(*backend, store.find("s").value);
  for (std::size_t i = 0; i < 18; ++i) EXPECT_EQ(values[i] == 0, i % 3 > i / 3 % 3) << i;
}

TEST(ParameterStore, TablesStandBesideParametersAndAreNeverTrained) {
  const auto backend = make_cpu_backend();
  ParameterStore store;
  store.add({.name = "w", .shape = {3}, .initial = Initial::ones()});
  store.add_table("ids", 4, {3, 1, 0, 2});
  EXPECT_THROW(store.add_table("ids", 4, {3, 1, 0, 2}), Error) << "twice";
  EXPECT_THROW(store.add_table("short", 4, {3, 1}), Error);
  store.seal(*backend, DType::bf16, 1);
  std::vector<std::int32_t> values(4);
  backend->download(store.tables()[0].view, values.data());
  EXPECT_EQ(values, (std::vector<std::int32_t>{3, 1, 0, 2}));
  EXPECT_EQ(store.count_global(), 3);
  EXPECT_THROW(store.add_table("late", 1, {0}), Error);
  ParameterStore empty;
  empty.add_table("ids", 4, {});
  EXPECT_THROW(empty.seal(*backend, DType::f32, 1), Error) << "first values were asked for";
}

}  // namespace
}  // namespace smlp
