// The benchmarks on the emulated GPU: what they measure is the emulation; that they measure it all, by the device's clock and
// beside its limits, is what these tests are for.
#include "worker/bench.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>
#include <thread>

#include "tensor/arena.h"
#include "tests/comm/ranks.h"
#include "worker/machine_limits.h"
#include "worker/world.h"

namespace smlp {
namespace {

BenchOptions small(const std::string& kind) {
  BenchOptions options{.job = {}, .seconds = 0.01, .least_product = 64, .least_vector = 4096, .most_bytes = 1 << 14};
  auto& job = options.job;
  job.model.kind = kind;
  job.model.context = 8;
  job.model.width = job.model.hidden = 16;
  job.model.heads = 2;
  job.model.dense_blocks = 2;
  job.model.sparse_blocks = 0;
  job.model.vocabulary = 64;
  job.train.precision = "bf16";
  job.train.micro_batch = job.train.global_batch = 2;
  job.cluster.ranks = job.cluster.expert_ranks = 1;
  job.cluster.device = "cuda";
  return options;
}

BenchOptions with_experts() {
  auto options = small("smlp");
  options.job.model.sparse_blocks = 1;
  options.job.model.experts = 4;
  options.job.routing.group_sequences = 2;
  return options;
}

bool positive(const nlohmann::json& value) { return std::isfinite(value.get<double>()) && value.get<double>() > 0; }

class DeviceBench : public testing::Test {
 protected:
  void SetUp() override {
    if (test::world().size() > 1) GTEST_SKIP() << "of one rank";
  }
};

TEST_F(DeviceBench, TakesTheTimeOfTheDevice) {
  const auto backend = make_cuda_backend();
  using namespace std::chrono_literals;
  EXPECT_GE(backend->timed([] { std::this_thread::sleep_for(30ms); }), 0.02) << "what is between two events";
  const double nothing = backend->timed([] {});
  EXPECT_GE(nothing, 0);
  EXPECT_LT(nothing, 0.02);
}

TEST_F(DeviceBench, StepTellsItsShareAndItsPhasesByTheDevicesClock) {
  nlohmann::json result;
  bench_step(small("gmlp"), result);
  EXPECT_EQ(result["device"], "cuda:0");
  for (const char* key : {"tokens_per_second", "matmul_flops_per_second", "useful_flops_per_second", "share"}) {
    EXPECT_TRUE(positive(result[key])) << key << result;
  }
  for (const char* phase : {"forward", "backward", "optimizer"}) EXPECT_TRUE(positive(result["phases"][phase])) << phase;
}

TEST_F(DeviceBench, AStepHasTheJobsGlobalBatch) {
  auto options = small("gmlp");
  options.job.train.global_batch = 6;
  nlohmann::json result;
  bench_step(options, result);
  EXPECT_EQ(result["tokens_per_step"], 6 * 8);
  EXPECT_EQ(result["ranks"], 1);
  EXPECT_TRUE(result["tokens_per_step"].is_number_integer() && result["ranks"].is_number_integer()) << result;
  EXPECT_EQ(result["micro_batch"], 2);
  EXPECT_NEAR(result["tokens_per_second"].get<double>() * result["step_seconds"].get<double>(), 6 * 8, 1e-6);
}

TEST_F(DeviceBench, EveryKernelStandsBesideItsFloor) {
  for (const auto& options : {small("gmlp"), small("transformer"), with_experts()}) {
    nlohmann::json result;
    bench_kernels(options, result);
    EXPECT_EQ(result["device"], "cuda:0");
    const double products = result["matmul_flops_per_second"], memory = result["memory_bytes_per_second"];
    std::set<std::string> names;
    for (const auto& kernel : result["kernels"]) {
      names.insert(kernel["name"]);
      EXPECT_TRUE(positive(kernel["seconds"])) << kernel;
      const double seconds = kernel["seconds"], floor = kernel["floor_seconds"];
      EXPECT_NEAR(kernel["share"].get<double>(), floor / seconds, 1e-9) << kernel;
      const bool moves = kernel.contains("bytes_per_second");
      const double work = seconds * kernel[moves ? "bytes_per_second" : "flops_per_second"].get<double>();
      EXPECT_GE(floor, 0.999 * work / (moves ? memory : products)) << kernel;
    }
    for (const char* name : {"in: + bias, gelu", "spatial", "attention, backward", "norm", "cross entropy", "adamw"}) {
      EXPECT_TRUE(names.contains(name)) << name;
    }
    EXPECT_GT(result["step_seconds_dense"].get<double>(), result["product_seconds_dense"].get<double>());
    EXPECT_TRUE(positive(result["floor_seconds_dense"]));
    const bool sparse = options.job.model.sparse_blocks > 0;
    for (const char* name : {"experts in: + bias, gelu", "experts out: dx = gelu' · (dy · W)", "experts in: dW += dy^T · x",
                             "groups: spatial", "groups: whole squares alone", "assignment, balanced"}) {
      EXPECT_EQ(names.contains(name), sparse) << name;
    }
    EXPECT_EQ(result.contains("step_seconds_experts"), sparse);
    if (!sparse) continue;
    EXPECT_GT(result["step_seconds_experts"].get<double>(), result["product_seconds_experts"].get<double>());
  }
}

TEST_F(DeviceBench, AProcessorHasTheSameKernels) {
  std::set<std::string> names[2];
  for (const bool device : {true, false}) {
    auto options = with_experts();
    options.job.cluster.device = device ? "cuda" : "cpu";
    nlohmann::json result;
    bench_kernels(options, result);
    EXPECT_EQ(result.contains("product_ends"), device);
    EXPECT_EQ(result.contains("deterministic"), device);
    for (const auto& kernel : result["kernels"]) {
      const std::string name = kernel["name"];
      if (!name.starts_with("limit")) names[device].insert(name);
    }
  }
  EXPECT_EQ(names[0], names[1]);
}

TEST_F(DeviceBench, MultipliesNumbersThatDiffer) {
  const auto backend = make_cuda_backend();
  Arena arena(*backend);
  for (const Shape& shape : {Shape{128}, Shape{8, 16}, Shape{2, 4, 16}}) {
    std::set<float> seen;
    for (const std::uint64_t key : {1, 2}) {
      const TensorView x = arena.take(shape, DType::f32);
      draw(*backend, x, key);
      std::vector<float> numbers(128);
      backend->download(x, numbers.data());
      const auto [least, most] = std::minmax_element(numbers.begin(), numbers.end());
      EXPECT_TRUE(*least >= -1 && *least < -0.9f && *most > 0.9f && *most <= 1) << *least << " " << *most;
      seen.insert(numbers.begin(), numbers.end());
    }
    EXPECT_GT(seen.size(), 250u) << "each key has its own";
  }
}

TEST(DeviceBenchOfRanks, CollectivesStandBesideTheLinkToTheHost) {
  auto options = small("gmlp");
  const int ranks = test::world().size();
  options.job.cluster.ranks = ranks;
  nlohmann::json result;
  bench_comm(options, result);
  leave_world();
  if (test::world().rank() > 0) {
    EXPECT_TRUE(result.is_null());
    return;
  }
  EXPECT_EQ(result["device"], "cuda:0");
  ASSERT_EQ(result["all_reduce"].size(), 1u) << "no message above the largest: " << result;
  EXPECT_EQ(result["all_reduce"][0]["bytes"], 1 << 14);
  for (const char* collective : {"all_reduce", "all_to_all"}) {
    const auto& one = result[collective].back();
    EXPECT_TRUE(positive(one["seconds"])) << one;
    if (ranks == 1) continue;
    EXPECT_TRUE(positive(one["bytes_per_second"]) && positive(one["copy_bytes_per_second"])) << one;
  }
}

}  // namespace
}  // namespace smlp
