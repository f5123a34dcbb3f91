// A tiny model learns in every type, and the counting backend counts what it says.
#include <gtest/gtest.h>

#include <cmath>

#include "optim/adamw.h"
#include "optim/gradient_sync.h"
#include "tensor/counting.h"
#include "tests/layers/tiny_model.h"

namespace smlp {
namespace {

double loss_after(DType type, int steps, std::vector<std::string> stack = {"gmlp", "smlp", "gmlp"},
                  const std::string& channels = "deterministic") {
  auto backend = make_cpu_backend();
  ProcessGrid grid = ProcessGrid::cut(make_solo(*backend), 1);
  ModelConfig config = test::tiny_config(std::move(stack));
  config.channels = channels;
  config.width = 32;
  config.hidden = 64;
  config.dropout = 0.02;
  test::TinyModel m(config, *backend, *grid.experts, type, 1, 0.15);
  AdamW adamw(*backend, m.store, {.weight_decay = 0.1, .clip_norm = 1});
  GradientSync sync(*backend, m.store, grid, m.model->blocks());
  m.load(test::random_batch(config, 4, 2), 0, 4);
  m.loss_scale = 1.0 / 24;
  double loss = 0;
  for (int step = 0; step <= steps; ++step) {
    m.c.stand_at(step, 0);
    m.store.zero_grad(*backend);
    loss = m.forward_loss();
    m.model->backward(m.c, [&](int k) { sync.block_done(k); });
    sync.finish();
    adamw.prepare(5e-3);
    sync.squared_norm(adamw.control());
    adamw.apply();
    EXPECT_TRUE(adamw.finish(adamw.squared_norm()));
  }
  return loss;
}

TEST(Training, GoesDownInEveryType) {
  const double expected = loss_after(DType::f64, 60);
  EXPECT_GT(loss_after(DType::f64, 0), 2.0);
  EXPECT_LT(expected, 0.3);
  EXPECT_NEAR(loss_after(DType::f32, 60), expected, 0.01);
  EXPECT_NEAR(loss_after(DType::bf16, 60), expected, 0.1);
}

TEST(Training, OfOtherKindsGoesDownInEveryTypeToo) {
  const auto halves = [](const std::vector<std::string>& stack, const std::string& channels = "deterministic") {
    const double start = loss_after(DType::f64, 0, stack, channels);
    for (const DType type : {DType::f64, DType::f32, DType::bf16}) {
      EXPECT_LT(loss_after(type, 60, stack, channels), start / 2) << stack.back() << " in " << name_of(type);
    }
  };
  for (const char* kind : {"transformer", "base", "hash", "switch", "gshard"}) halves({"transformer", kind});
  halves({"gmlp", "gmlp-token-moe"});
  halves({"gmlp", "smlp"}, "partial");
}

TEST(CountingBackend, CountsWhatIsHeld) {
  CountingBackend backend;
  void* a = backend.allocate(100);
  void* b = backend.allocate(50);
  backend.release(a);
  void* c = backend.allocate(20);
  EXPECT_EQ(backend.bytes_now(), 70);
  EXPECT_EQ(backend.bytes_peak(), 150);
  EXPECT_EQ(backend.allocations(), 3);
  backend.release(b);
  backend.release(c);
  EXPECT_EQ(backend.bytes_now(), 0);
}

}  // namespace
}  // namespace smlp
