#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "tests/layers/faulting_backend.h"
#include "tests/layers/tiny_model.h"

namespace smlp {
namespace {

using test::Batch;
using test::random_batch;
using test::tiny_config;
using test::TinyModel;

std::vector<std::vector<std::string>> every_sparse_stack() {  // each with one sparse block
  return {{"gmlp", "smlp"},        {"gmlp", "smlp", "gmlp"},   {"transformer", "base"},    {"transformer", "hash"},
          {"transformer", "switch"}, {"transformer", "gshard"}, {"gmlp", "gmlp-token-moe"}};
}

std::vector<double> flat_gradients(TinyModel& m) {
  std::vector<double> all;
  for (const auto& parameter : m.store.parameters()) {
    const auto gradients = test::read(m.backend, parameter.grad);
    all.insert(all.end(), gradients.begin(), gradients.end());
  }
  return all;
}

TEST(SparsePlaces, FollowThePaperOrFairseq) {
  const auto text = [](std::int64_t dense, std::int64_t sparse, const char* rule) {
    std::string out;
    for (const bool place : sparse_places(dense, sparse, rule)) out += place ? 'S' : 'd';
    return out;
  };
  EXPECT_EQ(text(4, 2, "paper"), "dSdSdd");
  EXPECT_EQ(text(4, 2, "fairseq"), "dSSddd");  // insertions push what follows back
  EXPECT_EQ(text(2, 1, "paper"), "Sdd");
  EXPECT_EQ(text(2, 1, "fairseq"), "dSd");
  EXPECT_EQ(text(3, 0, "paper"), "ddd");
  EXPECT_EQ(text(0, 2, "paper"), "SS");
  EXPECT_EQ(text(1, 3, "paper"), "SSSd");
  // floor(k · 30 / 9), k = 1..8: 3 6 10 13 16 20 23 26
  EXPECT_EQ(text(22, 8, "paper"), "ddSddSdddSddSddSdddSddSddSdddd");
  EXPECT_THROW(sparse_places(1, 1, "somewhere"), Error);
}

TEST(Model, HasTheNamesAndShapesOfItsStack) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  ModelConfig config = tiny_config({});
  config.kind = "smlp";
  config.dense_blocks = 2;
  config.sparse_blocks = 1;
  TinyModel m(config, *backend, *solo, DType::f64);
  EXPECT_EQ(m.model->blocks(), 3);
  EXPECT_EQ(m.store.find("embed.weight").shape, (Shape{11, 8}));
  EXPECT_EQ(m.store.find("blocks.0.smoe.experts.spatial.weight").shape, (Shape{4, 6, 6}));
  EXPECT_EQ(m.store.find("blocks.0.tmoe.experts.out.weight").shape, (Shape{4, 8, 12}));
  EXPECT_EQ(m.store.find("blocks.1.spatial.bias").shape, (Shape{2, 6}));
  EXPECT_TRUE(m.store.find("blocks.0.tmoe.centroids").decay);
  EXPECT_FALSE(m.store.find("blocks.0.smoe.experts.norm.weight").decay);
  EXPECT_FALSE(m.store.find("blocks.1.spatial.bias").decay);
  EXPECT_EQ(m.store.find("blocks.0.tmoe.experts.in.bias").placement, Placement::expert);
}

TEST(Model, RefusesSizesThatDoNotFit) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  const auto refused = [&](auto change) {
    ModelConfig config = tiny_config({"gmlp", "smlp"});
    change(config);
    ParameterStore store;
    EXPECT_THROW(make_model(config, store, {*solo}), Error);
  };
  refused([](ModelConfig& c) { c.experts = 3; });
  refused([](ModelConfig& c) { c.hidden = 13; });
  refused([](ModelConfig& c) { c.heads = 5; });
  refused([](ModelConfig& c) { c.stack = {"perceptron"}; });
  refused([](ModelConfig& c) { c.stack = {"transformer"}, c.heads = 3; });
  refused([](ModelConfig& c) { c.stack = {"transformer"}, c.heads = 9, c.width = 9; });
  refused([](ModelConfig& c) { c.channels = "random"; });
  refused([](ModelConfig& c) { c.channels = "leaky"; });
  refused([](ModelConfig& c) { c.channels = "partial", c.context = 4; });
  refused([](ModelConfig& c) { c.router.tokens = "nearest"; });
}

struct GradientCase {
  std::vector<std::string> stack;
  std::string channels = "deterministic";
  double dropout = 0;
};

class ModelGradients : public testing::TestWithParam<GradientCase> {};

TEST_P(ModelGradients, MatchDifferences) {
  const GradientCase& p = GetParam();
  ModelConfig config = tiny_config(p.stack);
  config.channels = p.channels;
  config.allow_leak = true;
  config.dropout = p.dropout;
  config.context = 5;
  config.experts = 2;
  config.vocabulary = 7;
  config.router.hash_table = {0, 1, 1, 0, 1, 0, 0};
  test::Bench bench;
  TinyModel m(config, *bench.backend, *bench.solo, DType::f64);
  Batch batch = random_batch(config, 2, 9);
  batch.targets[3] = -1;  // not predicted
  m.load(batch, 0, 2);
  m.loss_scale = 0.125;
  std::vector<int> done;
  const auto loss = [&] { return m.forward_loss(); };
  const auto backward = [&] {
    loss();
    done.clear();
    m.model->backward(m.c, [&](int k) { done.push_back(k); });
  };
  // The bench compares its own store, so the model's gradients are compared here.
  m.store.zero_grad(m.backend);
  backward();
  backward();
  EXPECT_EQ(done, (std::vector<int>{2, 1, 0, -1}));
  for (auto& parameter : m.store.parameters()) {
    auto values = test::read(m.backend, parameter.value);
    const auto claimed = test::read(m.backend, parameter.grad);
    for (std::size_t i = 0; i < values.size(); i += 1 + i % 3) {
      const double h = 2e-4, value = values[i];
      const auto moved = [&](double by) {
        values[i] = value + by;
        test::write(m.backend, parameter.value, values);
        return loss();
      };
      const double difference = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
      moved(0);
      ASSERT_NEAR(claimed[i] / 2, difference, 1e-7 * (1 + std::abs(difference))) << parameter.name << "[" << i << "]";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, ModelGradients,
    testing::Values(GradientCase{{"gmlp", "smlp"}}, GradientCase{{"gmlp", "smlp"}, "deterministic", 0.25},
                    GradientCase{{"gmlp", "smlp"}, "partial", 0.25}, GradientCase{{"smlp", "gmlp"}, "leaky"},
                    GradientCase{{"transformer", "transformer"}, "deterministic", 0.25},
                    GradientCase{{"transformer", "base"}}, GradientCase{{"hash", "transformer"}},
                    GradientCase{{"transformer", "switch"}}, GradientCase{{"switch", "switch"}, "deterministic", 0.25},
                    GradientCase{{"transformer", "gshard"}}, GradientCase{{"gmlp", "gmlp-token-moe"}}));

TEST(Model, ManyRowsAreTheSumOfTheirParts) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  TinyModel whole(tiny_config({"gmlp"}), *backend, *solo, DType::f64);
  TinyModel parts(whole.config, *backend, *solo, DType::f64);
  const Batch batch = random_batch(whole.config, 200, 3);  // 1200 rows: more than the head takes at once
  whole.load(batch, 0, 200);
  const double loss = whole.forward_loss();
  whole.backward();
  double sum = 0;
  for (std::int64_t first = 0; first < 200; first += 50) {
    parts.load(batch, first, 50);
    sum += parts.forward_loss();
    parts.backward();
  }
  EXPECT_NEAR(sum, loss, 1e-12 * loss);
  const auto expected = flat_gradients(whole), found = flat_gradients(parts);
  for (std::size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 1e-10);
  whole.c.mode = parts.c.mode = Mode::evaluation;
  EXPECT_NEAR(whole.forward_loss(), loss, 1e-12 * loss);
}

TEST(Model, RunsOnAddressesThatFaultOnTheHost) {
  for (const auto& stack : every_sparse_stack()) {
    const DType type = stack.size() % 2 == 0 ? DType::f32 : DType::f64;
    test::FaultingBackend faulting;
    auto plain = make_cpu_backend();
    const auto far = make_solo(faulting), near = make_solo(*plain);
    ModelConfig config = tiny_config(stack);
    if (stack.size() == 3) config.channels = "partial";
    config.dropout = 0.1;
    TinyModel a(config, faulting, *far, type), b(config, *plain, *near, type);
    const Batch batch = random_batch(config, 2, 3);
    for (TinyModel* m : {&a, &b}) {
      m->load(batch, 0, 2);
      std::vector<RoutingReport> reports;
      m->c.reports = &reports;
      m->forward_loss();
      m->backward();
      EXPECT_EQ(reports.size(), 1u);
      m->c.reports = nullptr;
    }
    EXPECT_EQ(flat_gradients(a), flat_gradients(b));
    a.c.mode = b.c.mode = Mode::evaluation;
    EXPECT_EQ(a.forward_loss(), b.forward_loss());
    EXPECT_EQ(a.logits(), b.logits());
  }
}

TEST(FaultingBackend, HandsOutAddressesThatFault) {
  test::FaultingBackend backend;
  auto* address = static_cast<volatile char*>(backend.allocate(64));
  EXPECT_DEATH(address[0] = 1, "");
  backend.release(const_cast<char*>(address));
}

TEST(Model, EvaluationMemoryDoesNotGrowWithDepth) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  const auto peak = [&](std::vector<std::string> stack, Mode mode) {
    TinyModel m(tiny_config(std::move(stack)), *backend, *solo, DType::f32);
    m.load(random_batch(m.config, 1024, 3), 0, 1024);
    m.c.mode = mode;
    m.forward_loss();
    return m.scratch.peak_bytes();
  };
  EXPECT_EQ(peak({"gmlp", "smlp"}, Mode::evaluation),
            peak({"gmlp", "smlp", "gmlp", "smlp", "smlp"}, Mode::evaluation));
  EXPECT_LT(peak({"gmlp", "smlp"}, Mode::training),
            peak({"gmlp", "smlp", "gmlp", "smlp", "smlp"}, Mode::training));
}

TEST(Model, TheSameStepTakesTheSameScratchMemory) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  TinyModel m(tiny_config({"gmlp", "smlp"}), *backend, *solo, DType::f32);
  m.load(random_batch(m.config, 64, 3), 0, 64);
  std::int64_t after_two = 0;
  for (int step = 0; step < 5; ++step) {
    m.forward_loss();
    m.backward();
    if (step == 1) after_two = m.scratch.allocations();
  }
  EXPECT_EQ(m.scratch.allocations(), after_two);
}

TEST(Model, LogitsOfChosenRowsAreThoseRows) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  TinyModel m(tiny_config({"gmlp", "smlp"}), *backend, *solo, DType::f64);
  m.load(random_batch(m.config, 2, 3), 0, 2);
  m.c.mode = Mode::evaluation;
  const auto all = m.logits();
  const TensorView rows = m.memory.take({3}, DType::i32);
  test::write_indices(*backend, rows, {7, -1, 2});
  const TensorView out = m.memory.take({3, 11}, DType::f64);
  m.scratch.reset();
  m.model->forward_logits(m.c, rows, out);
  const auto some = test::read(*backend, out);
  for (std::size_t v = 0; v < 11; ++v) {
    EXPECT_NEAR(some[v], all[7 * 11 + v], 1e-13);
    EXPECT_EQ(some[11 + v], 0);
    EXPECT_NEAR(some[22 + v], all[2 * 11 + v], 1e-13);
  }
}

TEST(Model, TheUpperTriangleIsNeverRead) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  TinyModel clean(tiny_config({"gmlp", "smlp"}), *backend, *solo, DType::f64);
  TinyModel dirty(tiny_config({"gmlp", "smlp"}), *backend, *solo, DType::f64);
  for (auto& parameter : dirty.store.parameters()) {
    if (!parameter.lower_triangle) continue;
    auto values = test::read(*backend, parameter.value);
    const auto side = static_cast<std::size_t>(parameter.shape.last());
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (i % side > i / side % side) values[i] = std::numeric_limits<double>::quiet_NaN();
    }
    test::write(*backend, parameter.value, values);
  }
  const Batch batch = random_batch(clean.config, 2, 3);
  for (TinyModel* m : {&clean, &dirty}) {
    m->load(batch, 0, 2);
    m->forward_loss();
    m->backward();
  }
  EXPECT_EQ(flat_gradients(clean), flat_gradients(dirty));
  for (auto& parameter : clean.store.parameters()) {
    if (!parameter.lower_triangle) continue;
    const auto gradients = test::read(*backend, parameter.grad);
    const auto side = static_cast<std::size_t>(parameter.shape.last());
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      if (i % side > i / side % side) {
        EXPECT_EQ(gradients[i], 0);
      }
    }
  }
}

// What a causality test runs: a stack and how its channels are routed.
struct CausalCase {
  std::vector<std::string> stack;
  std::string channels = "deterministic";
  std::size_t first = 0;  // logits before it take no part: partial prediction moves the prefix's own
};

ModelConfig config_of(const CausalCase& p) {
  ModelConfig config = tiny_config(p.stack);
  config.channels = p.channels;
  config.allow_leak = true;
  return config;
}

// By how much logits move with the tokens after position t of the second sequence: those that may, and those that may not.
struct Moved {
  double later = 0, earlier = 0;
};

Moved moved_by_tokens_after(TinyModel& m, const Batch& batch, std::size_t t) {
  const auto context = static_cast<std::size_t>(m.config.context), width = static_cast<std::size_t>(m.config.vocabulary);
  m.load(batch, 0, 3);
  const auto before = m.logits();
  Batch changed = batch;
  for (std::size_t later = t + 1; later < context; ++later) {
    auto& token = changed.tokens[context + later];
    token = static_cast<std::int32_t>((token + 3) % m.config.vocabulary);
  }
  m.load(changed, 0, 3);
  const auto after = m.logits();
  Moved moved;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const std::size_t row = i / width;
    double& most = row > context + t && row < 2 * context ? moved.later : moved.earlier;
    most = std::max(most, std::abs(after[i] - before[i]));
  }
  return moved;
}

class Causality : public testing::TestWithParam<CausalCase> {};

TEST_P(Causality, LaterTokensMoveNoEarlierLogit) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  TinyModel m(config_of(GetParam()), *backend, *solo, DType::f64);
  m.c.mode = Mode::evaluation;
  EXPECT_TRUE(m.model->causal());
  const Batch batch = random_batch(m.config, 3, 3);
  for (std::size_t t = GetParam().first; t + 1 < static_cast<std::size_t>(m.config.context); ++t) {
    const Moved moved = moved_by_tokens_after(m, batch, t);
    EXPECT_LE(moved.earlier, 1e-12) << "tokens after " << t;
    EXPECT_GT(moved.later, 1e-3);
  }
}

TEST_P(Causality, AShorterSequenceEqualsThePaddedOne) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  TinyModel m(config_of(GetParam()), *backend, *solo, DType::f64);
  m.c.mode = Mode::evaluation;
  const Batch batch = random_batch(m.config, 2, 3);
  m.load(batch, 0, 2);
  const auto padded = m.logits();
  m.load(batch, 0, 2, 4);
  const auto shorter = m.logits();
  const auto width = static_cast<std::size_t>(m.config.vocabulary);
  for (std::size_t s = 0; s < 2; ++s) {
    for (std::size_t i = 0; i < 4 * width; ++i) {
      ASSERT_NEAR(shorter[s * 4 * width + i], padded[s * 6 * width + i], 1e-12);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Causality,
                         testing::Values(CausalCase{{"gmlp", "gmlp"}}, CausalCase{{"transformer", "transformer"}},
                                         CausalCase{{"gmlp", "smlp", "smlp"}},
                                         CausalCase{{"gmlp", "smlp"}, "partial"}, CausalCase{{"transformer", "base"}},
                                         CausalCase{{"transformer", "hash"}}, CausalCase{{"transformer", "switch"}},
                                         CausalCase{{"transformer", "gshard"}},
                                         CausalCase{{"gmlp", "gmlp-token-moe", "gmlp-token-moe"}}));

TEST(LeakyModel, FailsCausality) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  TinyModel m(config_of({{"gmlp", "smlp"}, "leaky"}), *backend, *solo, DType::f64);
  m.c.mode = Mode::evaluation;
  EXPECT_FALSE(m.model->causal());
  const Moved moved = moved_by_tokens_after(m, random_batch(m.config, 3, 3), 1);
  EXPECT_GT(moved.earlier, 1e-3);
}

TEST(PartialPrediction, CountsThePositionsAfterThePrefixAlone) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  ModelConfig config = config_of({{"gmlp", "smlp"}, "partial"});
  config.context = 10;
  TinyModel m(config, *backend, *solo, DType::f64);
  EXPECT_EQ(m.model->predicted(10), 8);
  EXPECT_EQ(m.model->predicted(1), 0);
  Batch batch = random_batch(config, 2, 3);
  m.load(batch, 0, 2);
  const double loss = m.forward_loss();
  for (const std::size_t row : {0, 1, 10, 11}) batch.targets[row] = (batch.targets[row] + 1) % 11;
  m.load(batch, 0, 2);
  EXPECT_EQ(m.forward_loss(), loss);
  batch.targets[2] = (batch.targets[2] + 1) % 11;
  m.load(batch, 0, 2);
  EXPECT_NE(m.forward_loss(), loss);
}

}  // namespace
}  // namespace smlp
