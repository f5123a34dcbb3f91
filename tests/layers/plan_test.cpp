// What the paper says of the sizes of its models, and what formulas say, against the counts of the real layers.
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <string>

#include "layers/plan.h"

namespace smlp {
namespace {

// Small: width 1024. Large: twice that.
ModelConfig paper_config(const char* kind, std::int64_t dense, std::int64_t sparse, std::int64_t times = 1) {
  ModelConfig config;
  config.kind = kind;
  config.context = 1024;
  config.width = 1024 * times;
  config.hidden = 4096 * times;
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

  const PlanCounts large = count_model(paper_config("smlp", 22, 8, 2), 32, 32, 2, DType::f32, 8);
  expect_within(large.parameters.non_expert, 682.6e6, 1e-3);
  expect_within(large.parameters.expert, 277.1e6, 1e-3);
  expect_within(large.forward_macs.paper, 2.123e12, 1e-3);
}

// Attention of `blocks` blocks over two sequences: what its causal half leaves uncomputed.
std::int64_t skipped_by_attention(std::int64_t blocks, std::int64_t width) {
  return blocks * 2 * 2 * width * (1024 * 1023 / 2);
}

// A checkpoint holds them beside the parameters; they were left out.
TEST(Plan, CountsTheTablesOfACheckpoint) {
  ModelConfig config = paper_config("hash", 4, 2);
  const auto of_parameters = [&](const PlanCounts& plan) { return 12 * plan.parameters.total; };
  config.router.hash_table.assign(static_cast<std::size_t>(config.vocabulary), 0);
  const PlanCounts hashed = count_model(config, 32, 32, 1, DType::f32, 1);
  EXPECT_EQ(hashed.checkpoint_bytes - of_parameters(hashed), 4 * 2 * config.vocabulary);
  const PlanCounts unbiased = count_model(paper_config("switch", 4, 4), 32, 32, 1, DType::f32, 1);
  EXPECT_EQ(unbiased.checkpoint_bytes, of_parameters(unbiased));
  config = paper_config("switch", 4, 4);
  config.router.softmax.bias_rate = 1e-3;
  const PlanCounts biased = count_model(config, 32, 32, 1, DType::f32, 1);
  EXPECT_EQ(biased.checkpoint_bytes - of_parameters(biased), 4 * 4 * 32);
}

TEST(Plan, CountsThePapersTransformer) {
  ModelConfig config = paper_config("transformer", 24, 0);
  for (const std::int64_t heads : {1, 16}) {
    config.heads = heads;
    const PlanCounts plan = count_model(config, 32, 1, 4, DType::f32, 4);
    expect_within(plan.parameters.total, 354.740e6, 1e-6);
    expect_within(plan.parameters.non_expert, 354.76e6, 1e-3);
    expect_within(plan.forward_macs.paper, 0.829e12, 1e-3);
    EXPECT_EQ(plan.forward_macs.executed, plan.forward_macs.paper - skipped_by_attention(24, 1024));
    EXPECT_EQ(plan.exchange_bytes_per_step, 0);
  }
}

// Bytes that this process has held at most since `reset`, where the kernel tells.
std::int64_t most_held(bool reset = false) {
  if (reset) std::ofstream("/proc/self/clear_refs") << 5;
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::int64_t kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return kilobytes << 10;
  }
  return 0;
}

// The host really made the tables by which experts that are blocks spread their tokens, of all experts at once.
TEST(Plan, TakesNoMemoryForTheTablesOfManyExperts) {
  ModelConfig config = paper_config("gmlp-token-moe", 1, 1);
  config.experts = 512;
  const std::int64_t sequences = 128, table = config.experts * sequences * config.context * 4;
  const auto before = most_held(true);
  const PlanCounts plan = count_model(config, 16, 16, sequences, DType::f32, 1);
  EXPECT_GT(plan.memory.activations, table) << "which is among what a rank takes";
  EXPECT_LT(most_held() - before, table / 4);
}

TEST(Plan, CountsTheLogitsThatABackendTakesAtOnce) {
  ModelConfig config = paper_config("gmlp", 2, 0);
  config.vocabulary = 200'000;  // most of what is taken, whoever takes it
  const std::int64_t host = Backend::rows_at_once_on_hosts, gpu = Backend::rows_at_once_on_gpus;
  const auto activations = [&](std::int64_t rows) {
    return count_model(config, 1, 1, 4, DType::bf16, 1, false, rows).memory.activations;
  };
  EXPECT_EQ(activations(gpu) - activations(host), (gpu - host) * config.vocabulary * size_of(DType::bf16));
}

TEST(Plan, CountsOneTokenMixingOperation) {  // table 3
  ModelConfig config = paper_config("transformer", 1, 0);
  config.heads = 16;
  const PlanCounts one = count_model(config, 1, 1, 1, DType::f32, 1);
  config.dense_blocks = 2;
  const PlanCounts two = count_model(config, 1, 1, 1, DType::f32, 1);
  const std::int64_t feedforward = 2 * 1024 * 4096 + 4096 + 1024, norms = 4 * 1024;
  expect_within(two.parameters.total - one.parameters.total - feedforward - norms, 4.198e6, 1e-3);
  const std::int64_t macs = two.forward_macs.paper - one.forward_macs.paper - std::int64_t{2} * 1024 * 2 * 1024 * 4096;
  expect_within(macs, 12.885e9, 1e-3);
}

TEST(Plan, CountsThePapersBaseModels) {
  const PlanCounts small = count_model(paper_config("base", 11, 12), 32, 32, 4, DType::f32, 4);
  expect_within(small.parameters.non_expert, 241.788e6, 1e-5);
  expect_within(small.parameters.non_expert, 241.79e6, 1e-3);
  expect_within(small.parameters.expert, 100.749e6, 1e-5);
  expect_within(small.parameters.expert, 100.75e6, 1e-3);
  EXPECT_EQ(small.parameters.experts, 32);
  // The design's formula: projections, attention, feed-forward, scores of the centroids, output projection.
  const double rows = 2048, attention = 4.0 * 1024 * 1024 + 2.0 * 1024 * 1024, forward = 2.0 * 1024 * 4096;
  expect_within(small.forward_macs.paper, rows * (23 * (attention + forward) + 12 * 32.0 * 1024 + 51200.0 * 1024), 1e-9);
  // The paper's 0.83 T is that of 12 dense blocks, its parameters those of 11.
  const PlanCounts twelve = count_model(paper_config("base", 12, 12), 32, 32, 4, DType::f32, 4);
  expect_within(twelve.forward_macs.paper, 0.83e12, 1e-3);
  EXPECT_EQ(small.forward_macs.executed, small.forward_macs.paper - skipped_by_attention(23, 1024));

  ModelConfig chains = paper_config("base", 11, 12);
  chains.expert_layers = 2;
  EXPECT_EQ(count_model(chains, 32, 32, 4, DType::f32, 4).parameters.expert, 2 * small.parameters.expert);

  const PlanCounts large = count_model(paper_config("base", 8, 8, 2), 32, 32, 2, DType::f32, 8);
  expect_within(large.parameters.non_expert, 642.568e6, 1e-5);
  expect_within(large.parameters.non_expert, 642.6e6, 1e-3);
  expect_within(large.parameters.expert, 268.550e6, 1e-5);
  expect_within(large.parameters.expert, 268.6e6, 1e-3);
  expect_within(large.forward_macs.paper, 2.00e12, 5e-3);
}

}  // namespace
}  // namespace smlp
