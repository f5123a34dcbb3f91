#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>

#include "core/error.h"
#include "optim/adamw.h"
#include "optim/gradient_sync.h"
#include "optim/schedule.h"

namespace smlp {
namespace {

TEST(Schedule, InverseSquareRootHasThePublishedValues) {
  const Schedule s{.kind = "inverse_sqrt", .learning_rate = 5e-4, .warmup_steps = 4000, .initial_rate = 1e-7};
  EXPECT_NEAR(s.rate(0), 1e-7, 1e-16);
  EXPECT_NEAR(s.rate(1), 2.24975e-7, 1e-15);
  EXPECT_NEAR(s.rate(2000), 2.5005e-4, 1e-15);
  EXPECT_NEAR(s.rate(3999), 4.99875e-4, 1e-9);
  EXPECT_NEAR(s.rate(4000), 5e-4, 1e-15);
  EXPECT_NEAR(s.rate(16000), 2.5e-4, 1e-15);
  EXPECT_NEAR(s.rate(25000), 2e-4, 1e-15);
}

TEST(Schedule, CosineEndsAtItsMinimum) {
  const Schedule s{.kind = "cosine",
                   .learning_rate = 1,
                   .warmup_steps = 10,
                   .initial_rate = 0,
                   .minimum_rate = 0.1,
                   .decay_steps = 110};
  EXPECT_DOUBLE_EQ(s.rate(5), 0.5);
  EXPECT_DOUBLE_EQ(s.rate(10), 1);
  EXPECT_DOUBLE_EQ(s.rate(60), 0.55);
  EXPECT_NEAR(s.rate(110), 0.1, 1e-15);
  EXPECT_NEAR(s.rate(1000), 0.1, 1e-15);
}

TEST(Schedule, ConstantStaysAndWarmUpMayBeAbsent) {
  EXPECT_DOUBLE_EQ((Schedule{.kind = "constant", .learning_rate = 2, .warmup_steps = 4}).rate(1), 0.5);
  EXPECT_DOUBLE_EQ((Schedule{.kind = "constant", .learning_rate = 2}).rate(100000), 2);
  EXPECT_DOUBLE_EQ((Schedule{.kind = "inverse_sqrt", .learning_rate = 2}).rate(0), 2);
  EXPECT_DOUBLE_EQ((Schedule{.kind = "inverse_sqrt", .learning_rate = 2}).rate(4), 1);
  EXPECT_DOUBLE_EQ((Schedule{.kind = "cosine", .learning_rate = 2}).rate(0), 2);
  EXPECT_THROW((Schedule{.kind = "square"}).rate(0), Error);
}

struct Small {
  explicit Small(DType type) {
    store.add({.name = "embed.weight", .shape = {3}, .initial = Initial::uniform(1)});
    store.add({.name = "blocks.0.bias", .shape = {2}, .initial = Initial::uniform(1), .decay = false});
    store.add({.name = "blocks.1.weight", .shape = {70}, .initial = Initial::uniform(1)});
    store.add({.name = "norm.weight", .shape = {5}, .initial = Initial::uniform(1), .decay = false});
    store.seal(*backend, type, 1);
  }

  std::vector<double> read(TensorView view) {
    void* memory = backend->allocate(view.size() * 8);
    const TensorView wide(memory, view.shape, DType::f64);
    backend->copy(view, wide);
    std::vector<double> values(static_cast<std::size_t>(view.size()));
    backend->download(wide, values.data());
    backend->release(memory);
    return values;
  }
  void set_gradients(double scale) {
    for (auto& parameter : store.parameters()) {
      std::vector<double> values(static_cast<std::size_t>(parameter.grad.size()));
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = scale * std::cos(static_cast<double>(i + 1));
      void* memory = backend->allocate(parameter.grad.size() * 8);
      const TensorView wide(memory, parameter.grad.shape, DType::f64);
      backend->upload(values.data(), wide);
      backend->copy(wide, parameter.grad);
      backend->release(memory);
    }
  }

  std::unique_ptr<Backend> backend = make_cpu_backend();
  ParameterStore store;
  ProcessGrid grid = ProcessGrid::cut(make_solo(*backend), 1);
};

// fairseq's adam with decoupled decay, written down once more, plainly.
struct Reference {
  std::vector<double> p, m, v;
  void update(const std::vector<double>& g, int n, double rate, const AdamWSettings& s, bool decay,
              double scale) {
    m.resize(p.size());
    v.resize(p.size());
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double gradient = g[i] * scale;
      m[i] = s.beta1 * m[i] + (1 - s.beta1) * gradient;
      v[i] = s.beta2 * v[i] + (1 - s.beta2) * gradient * gradient;
      if (decay) p[i] -= rate * s.weight_decay * p[i];
      p[i] -= rate * std::sqrt(1 - std::pow(s.beta2, n)) / (1 - std::pow(s.beta1, n)) * m[i] /
              (std::sqrt(v[i]) + s.eps);
    }
  }
};

TEST(AdamW, FollowsTheFormulaWithDecayClippingAndLossScale) {
  Small small(DType::f64);
  const AdamWSettings settings{.weight_decay = 0.1, .clip_norm = 2};
  AdamW adamw(*small.backend, small.store, settings);
  GradientSync sync(*small.backend, small.store, small.grid, 2);
  std::vector<Reference> references;
  for (const auto& parameter : small.store.parameters())
    references.push_back({small.read(parameter.value), {}, {}});

  const double loss_scale = 8;
  for (int n = 1; n <= 4; ++n) {
    small.set_gradients(loss_scale * n);
    double square = 0;
    for (const auto& parameter : small.store.parameters()) {
      for (const double g : small.read(parameter.grad)) square += g * g;
    }
    adamw.prepare(0.01 * n, 1 / loss_scale);
    sync.squared_norm(adamw.control());
    EXPECT_NEAR(adamw.squared_norm(), square, 1e-9 * square);
    adamw.apply();
    EXPECT_TRUE(adamw.finish(adamw.squared_norm()));
    const double norm = std::sqrt(square) / loss_scale;
    const double scale = std::min(1.0, settings.clip_norm / (norm + 1e-6)) / loss_scale;
    std::size_t k = 0;
    for (const auto& parameter : small.store.parameters()) {
      Reference& reference = references[k++];
      reference.update(small.read(parameter.grad), n, 0.01 * n, settings, parameter.decay, scale);
      const auto values = small.read(parameter.value);
      const auto state = adamw.state_of(parameter);
      EXPECT_EQ(state.first, 0);
      EXPECT_EQ(state.m.size(), parameter.shape.size());
      EXPECT_FALSE(state.master);
      const auto m = small.read(state.m), v = small.read(state.v);
      for (std::size_t i = 0; i < values.size(); ++i) {
        ASSERT_NEAR(values[i], reference.p[i], 1e-13) << parameter.name;
        ASSERT_NEAR(m[i], reference.m[i], 1e-13);
        ASSERT_NEAR(v[i], reference.v[i], 1e-13);
      }
    }
  }
  EXPECT_EQ(adamw.updates(), 4);
}

TEST(AdamW, LeavesEverythingAloneWhenTheNormIsNotFinite) {
  Small small(DType::f32);
  AdamW adamw(*small.backend, small.store, {.weight_decay = 0.1});
  GradientSync sync(*small.backend, small.store, small.grid, 2);
  const auto before = small.read(small.store.segments()[0].value);
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    small.set_gradients(1);
    small.backend->fill(small.store.find("norm.weight").grad, bad);
    adamw.prepare(0.1);
    sync.squared_norm(adamw.control());
    adamw.apply();
    EXPECT_FALSE(adamw.finish(adamw.squared_norm()));
  }
  EXPECT_EQ(small.read(small.store.segments()[0].value), before);
  EXPECT_EQ(adamw.updates(), 0);
  const auto state = adamw.state_of(small.store.find("blocks.1.weight"));
  for (const double m : small.read(state.m)) EXPECT_EQ(m, 0);
}

TEST(AdamW, MastersCarryWhatSixteenBitsCannot) {
  Small small(DType::bf16);
  AdamW adamw(*small.backend, small.store, {});
  GradientSync sync(*small.backend, small.store, small.grid, 2);
  const Parameter& parameter = small.store.find("blocks.1.weight");
  const auto first = small.read(parameter.value);
  for (int n = 0; n < 20; ++n) {  // each step is too small to change a 16-bit value by itself
    small.set_gradients(1);
    adamw.prepare(1e-4);
    sync.squared_norm(adamw.control());
    adamw.apply();
    adamw.finish(adamw.squared_norm());
  }
  const auto state = adamw.state_of(parameter);
  ASSERT_TRUE(state.master);
  EXPECT_EQ(state.master.dtype, DType::f32);
  const auto master = small.read(state.master), value = small.read(parameter.value);
  int moved = 0;
  for (std::size_t i = 0; i < value.size(); ++i) {
    EXPECT_NEAR(value[i], master[i], std::abs(master[i]) / 256 + 1e-9);
    EXPECT_NEAR(std::abs(master[i] - first[i]), 2e-3, 2e-4);
    moved += value[i] != first[i];
  }
  EXPECT_GT(moved, 5);
  small.backend->fill(parameter.value, 5);
  adamw.reset_masters();
  EXPECT_EQ(small.read(state.master)[0], 5);
}

TEST(GradientSync, WantsEveryBlockOnce) {
  Small small(DType::f32);
  GradientSync sync(*small.backend, small.store, small.grid, 2);
  for (int step = 0; step < 2; ++step) {
    for (int k = 2; k >= -1; --k) sync.block_done(k);
    sync.finish();
  }
  sync.block_done(2);
  EXPECT_THROW(sync.finish(), Error);
}

// One of several ranks that do nothing: writes down what it is asked for.
class Listed final : public Communicator {
 public:
  Listed(int size, std::vector<std::string>& calls) : size_(size), calls_(calls) {}
  int rank() const noexcept override { return 1; }
  int size() const noexcept override { return size_; }
  void before(Backend&) override { calls_.emplace_back("join"); }
  void all_reduce(TensorView view, Reduce) override { add("sum", view); }
  void reduce_scatter(TensorView in, TensorView out) override {
    EXPECT_EQ(out.data, own_part(in, out, "").data);
    add("scatter", in);
  }
  void all_gather(TensorView in, TensorView out) override {
    EXPECT_EQ(in.data, own_part(out, in, "").data);
    add("gather", out);
  }
  void broadcast(TensorView, int) override {}
  void all_to_all(TensorView, std::span<const std::int64_t>, TensorView, std::span<const std::int64_t>) override {}
  void all_reduce_host(std::span<double>, Reduce) override {}
  void all_to_all_host(std::span<const std::int64_t>, std::span<std::int64_t>) override {}
  std::vector<std::vector<std::byte>> gather_bytes(std::span<const std::byte>, int) override { return {}; }
  void broadcast_bytes(std::vector<std::byte>&, int) override {}
  void barrier() override {}
  std::unique_ptr<Transfer> start_send(std::span<const std::byte>, int) override { return nullptr; }
  std::unique_ptr<Transfer> start_receive(std::span<std::byte>, int) override { return nullptr; }
  std::unique_ptr<Communicator> split(int, int) override { return std::make_unique<Listed>(size_, calls_); }
  [[noreturn]] void abort(int) noexcept override { std::abort(); }

 private:
  void add(const char* what, const TensorView& view) { calls_.push_back(fmt::format("{} {}", what, view.size())); }
  int size_;
  std::vector<std::string>& calls_;
};

// Of 2 MiB a block, and of one whose two parameters take 4 and 2.
struct Blocks {
  explicit Blocks(std::int64_t parts) {
    const auto add = [&](const char* name, std::int64_t elements, bool decay = true) {
      store.add({.name = name, .shape = {elements}, .initial = Initial::zeros(), .decay = decay});
    };
    add("embed.weight", 100);
    add("blocks.0.weight", half);
    add("blocks.0.bias", 10, false);
    add("blocks.1.weight", 2 * half);
    add("blocks.1.more", half - 1);
    add("blocks.2.weight", half);
    add("head.bias", 5, false);
    store.seal(*backend, DType::f32, 1, true, parts);
  }
  // After each call of the backward pass, in turn.
  std::vector<std::vector<std::string>> calls_of_a_step(GradientSync& sync) {
    std::vector<std::vector<std::string>> all;
    for (int k = 3; k >= -1; --k) {
      calls.clear();
      sync.block_done(k);
      all.push_back(calls);
    }
    calls.clear();
    sync.finish();
    all.push_back(calls);
    return all;
  }
  static constexpr std::int64_t half = std::int64_t{1} << 19;
  std::unique_ptr<Backend> backend = make_cpu_backend();
  ParameterStore store;
  std::vector<std::string> calls;
  ProcessGrid grid{std::make_unique<Listed>(3, calls), std::make_unique<Listed>(1, calls),
                   std::make_unique<Listed>(3, calls)};
};

TEST(GradientSync, HandsABucketOverWhileTheBackwardPassGoesOn) {
  Blocks blocks(1);
  GradientSync sync(*blocks.backend, blocks.store, blocks.grid, 3);
  const std::vector<std::vector<std::string>> wanted = {
      {}, {}, {fmt::format("sum {}", 4 * Blocks::half)}, {}, {fmt::format("sum {}", 128 + Blocks::half), "sum 69"},
      {"join", "join"}};
  for (int step = 0; step < 2; ++step) EXPECT_EQ(blocks.calls_of_a_step(sync), wanted) << "step " << step;
  blocks.calls.clear();
  sync.gather_values();
  EXPECT_TRUE(blocks.calls.empty()) << "every rank has updated all";
  ASSERT_EQ(sync.shares().size(), 2U);
  EXPECT_EQ(sync.shares()[0].count, blocks.store.segments()[0].value.size());
}

TEST(GradientSync, SharesAreEqualPartsOfBucketsThatCoverEverySegment) {
  Blocks blocks(3);
  GradientSync sync(*blocks.backend, blocks.store, blocks.grid, 3, true);
  const std::int64_t half = blocks.store.aligned(Blocks::half), first = 192 + half;
  const std::int64_t rest = blocks.store.segments()[0].value.size() - first;
  const std::vector<std::vector<std::string>> wanted = {
      {}, {}, {fmt::format("scatter {}", rest)}, {}, {fmt::format("scatter {}", first), "scatter 384"},
      {"join", "join"}};
  EXPECT_EQ(blocks.calls_of_a_step(sync), wanted);
  blocks.calls.clear();
  sync.gather_values();
  EXPECT_EQ(blocks.calls, (std::vector<std::string>{fmt::format("gather {}", first), "gather 384",
                                                    fmt::format("gather {}", rest), "join", "join"}));
  std::int64_t mine = 0;
  for (const Share& share : sync.shares()) {
    EXPECT_EQ(share.first % 8, 0);
    mine += share.count;
  }
  EXPECT_EQ(3 * mine, first + rest + 384);
  Blocks unprepared(1);
  EXPECT_THROW(GradientSync(*unprepared.backend, unprepared.store, unprepared.grid, 3, true), Error);
}

TEST(AdamW, HasOfAParameterWhatLiesInItsShare) {
  Blocks blocks(3);
  const std::int64_t half = blocks.store.aligned(Blocks::half);
  const std::vector<Share> shares = {{0, 0, 192 + half / 2}, {1, 0, 192}};
  AdamW adamw(*blocks.backend, blocks.store, {}, shares);
  EXPECT_EQ(adamw.state_bytes(), 2 * 4 * (shares[0].count + shares[1].count) + 8 * StepControl::size);
  const auto whole = adamw.state_of(blocks.store.find("embed.weight"));
  const auto part = adamw.state_of(blocks.store.find("blocks.0.weight"));
  const auto none = adamw.state_of(blocks.store.find("blocks.2.weight"));
  EXPECT_EQ(whole.m.size(), 100);
  EXPECT_EQ(part.m.size(), half / 2);
  EXPECT_EQ(part.first, 0);
  EXPECT_EQ(static_cast<std::byte*>(part.v.data) - static_cast<std::byte*>(whole.v.data), 4 * 192);
  EXPECT_EQ(none.m.size(), 0);
  EXPECT_TRUE(none.m) << "there is such a tensor, though none of it is here";
  AdamW other(*blocks.backend, blocks.store, {}, {{0, 192 + half / 2, half}, {1, 192, 192}});
  EXPECT_EQ(other.state_of(blocks.store.find("blocks.0.weight")).first, half / 2);
  EXPECT_EQ(other.state_of(blocks.store.find("embed.weight")).m.size(), 0);
}

}  // namespace
}  // namespace smlp
