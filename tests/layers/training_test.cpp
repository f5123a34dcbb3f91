// A tiny model learns in every type, and the counting backend counts what it says.
#include <gtest/gtest.h>

#include <cmath>

#include "layers/plan.h"
#include "optim/adamw.h"
#include "optim/gradient_sync.h"
#include "tensor/counting.h"
#include "tests/layers/tiny_model.h"

namespace smlp {
namespace {

double loss_after(DType type, int steps) {
  auto backend = make_cpu_backend();
  ProcessGrid grid = ProcessGrid::cut(make_solo(*backend), 1);
  ModelConfig config = test::tiny_config({"gmlp", "smlp", "gmlp"});
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
    m.c.step = step;
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

ModelConfig paper_config(const char* kind, std::int64_t dense, std::int64_t sparse) {
  ModelConfig config;
  config.kind = kind;
  config.context = 1024;
  config.width = 1024;
  config.hidden = 4096;
  config.dense_blocks = dense;
  config.sparse_blocks = sparse;
  config.experts = sparse > 0 ? 32 : 1;
  config.vocabulary = 51200;
  config.dropout = 0.1;
  return config;
}

void expect_within(std::int64_t ours, double paper, double share) {
  EXPECT_NEAR(static_cast<double>(ours), paper, share * paper);
}

TEST(Plan, CountsThePapersDenseModel) {
  const PlanCounts plan = count_model(paper_config("gmlp", 41, 0), 32, 1, 4, DType::f32, 4);
  expect_within(plan.parameters.total, 353.874e6, 1e-5);
  expect_within(plan.parameters.non_expert, 353.87e6, 1e-3);
  EXPECT_EQ(plan.parameters.expert, 0);
  EXPECT_EQ(plan.parameters.experts, 0);
  expect_within(plan.forward_macs.paper, 0.812e12, 1e-3);
  // The causal half of 41 token mixings over 2048 channels, two sequences, is not computed.
  const std::int64_t skipped = std::int64_t{41} * 2 * 2048 * (1024 * 1023 / 2);
  EXPECT_EQ(plan.forward_macs.executed, plan.forward_macs.paper - skipped);
  EXPECT_EQ(plan.exchange_bytes_per_step, 0);
  EXPECT_EQ(plan.memory.exchange, 0);
  expect_within(plan.memory.parameters, 4.0 * static_cast<double>(plan.parameters.total), 1e-4);
  expect_within(plan.memory.optimizer, 8.0 * static_cast<double>(plan.parameters.total), 1e-4);
  EXPECT_EQ(plan.checkpoint_bytes, 12 * plan.parameters.total);
  EXPECT_GT(plan.memory.activations, std::int64_t{41} * 4096 * 1024 * 4 * 4);
}

TEST(Plan, CountsThePapersSparseModels) {
  const PlanCounts small = count_model(paper_config("smlp", 28, 12), 32, 32, 4, DType::bf16, 4);
  expect_within(small.parameters.non_expert, 258.69e6, 1e-4);
  expect_within(small.parameters.non_expert, 258.73e6, 1e-3);
  expect_within(small.parameters.expert, 113.345e6, 1e-5);
  expect_within(small.parameters.expert, 113.44e6, 1e-3);
  EXPECT_EQ(small.parameters.total, small.parameters.non_expert + 32 * small.parameters.expert);
  expect_within(small.forward_macs.paper, 0.821e12, 1e-3);
  EXPECT_EQ(small.memory.optimizer, 12 * (small.memory.gradients / 4));
  EXPECT_EQ(small.memory.parameters, 2 * (small.memory.gradients / 4));
  EXPECT_GT(small.memory.exchange, 0);
  // 12 blocks, channels there and back, tokens there and back, forward and backward; 31 of 32 parts leave the
  // rank, in two bytes an element.
  EXPECT_EQ(small.exchange_bytes_per_step, std::int64_t{4} * 12 * 2 * 4 * (4 * 1024) * 1024 * 2 * 31 / 32);

  ModelConfig config = paper_config("smlp", 22, 8);
  config.width = 2048;
  config.hidden = 8192;
  const PlanCounts large = count_model(config, 32, 32, 2, DType::f32, 8);
  expect_within(large.parameters.non_expert, 682.6e6, 1e-3);
  expect_within(large.parameters.expert, 277.1e6, 1e-3);
  expect_within(large.forward_macs.paper, 2.123e12, 1e-3);
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
