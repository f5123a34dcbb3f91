#include "worker/routing_settings.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "data/token_file_writer.h"
#include "tests/data/scratch.h"

namespace smlp {
namespace {

using testing::HasSubstr;

TEST(RouterSettings, CarryEveryKeyOfTheJob) {
  JobConfig job;
  const auto defaults = router_settings(job);
  EXPECT_EQ(defaults.tokens, "balanced");
  EXPECT_EQ(defaults.softmax.training.factor, 1);
  EXPECT_FALSE(defaults.softmax.evaluation.limited()) << "nothing is dropped at evaluation";
  EXPECT_EQ(defaults.softmax.second, SecondChoice::sampling);
  EXPECT_EQ(defaults.softmax.auxiliary.balance_weight, 0.01);
  EXPECT_EQ(defaults.softmax.auxiliary.z_weight, 0);

  auto& r = job.routing;
  r.tokens = "gshard";
  r.capacity_factor = 1.25;
  r.evaluation_capacity_factor = 2;
  r.evaluation_capacity_fraction = 0.25;
  r.capacity_rule = "mesh";
  r.minimum_capacity = 4;
  r.first_expert = "sampling";
  r.second_expert = "random";
  r.evaluation_second_expert = "threshold";
  r.second_threshold = 0.2;
  r.normalise = "before";
  r.gate = "sigmoid";
  r.expert_bias_rate = 1e-3;
  r.place_order = "gate";
  r.jitter = 0.01;
  r.balance_weight = 0.1;
  r.z_weight = 0.001;
  r.balance_counts = "all";
  r.balance_combine = "average";
  r.balance_transform = "neg_log";
  const auto all = router_settings(job);
  const auto& s = all.softmax;
  EXPECT_EQ(all.tokens, "gshard");
  EXPECT_EQ(s.training.of(1024, 32, 2), 40);    // int(1024 · 1.25 / 32)
  EXPECT_EQ(s.training.of(16, 32, 2), 4);
  EXPECT_EQ(s.evaluation.of(1024, 32, 2), 256);
  EXPECT_EQ(s.first, FirstChoice::sampling);
  EXPECT_EQ(s.normalise, Normalise::before_dropping);
  EXPECT_EQ(s.gate, GateKind::sigmoid);
  EXPECT_EQ(s.bias_rate, 1e-3);
  EXPECT_EQ(s.second, SecondChoice::random);
  EXPECT_EQ(s.evaluation_second, SecondChoice::threshold);
  EXPECT_EQ(s.second_threshold, 0.2);
  EXPECT_EQ(s.order, PlaceOrder::gate);
  EXPECT_EQ(s.jitter, 0.01);
  EXPECT_EQ(s.auxiliary.balance_weight, 0.1);
  EXPECT_EQ(s.auxiliary.z_weight, 0.001);
  EXPECT_TRUE(s.auxiliary.every_choice && s.auxiliary.average_layers && s.auxiliary.negative_log);
  r.first_expert = "sinkhorn";
  r.normalise = "never";
  EXPECT_EQ(router_settings(job).softmax.first, FirstChoice::sinkhorn);
  EXPECT_EQ(router_settings(job).softmax.normalise, Normalise::never);
}

TEST(CheckTables, LeavesAloneWhatTrainingMoves) {
  auto backend = make_cpu_backend();
  ParameterStore store;
  store.add_table("blocks.1.moe.router.bias", 3, {0, 0, 0}).moves = true;
  store.add({.name = "w", .shape = {1}, .initial = {}});
  store.seal(*backend, DType::f32, 1);
  const std::vector<std::int32_t> moved = {4, -2, 1};
  backend->upload(moved.data(), store.tables()[0].view);
  check_tables(*backend, store, JobConfig{}, "step-00000002");
}

class HashTables : public testing::Test {
 protected:
  HashTables() {
    job.routing.tokens = "hash";
    job.routing.hash_table = "balanced";
    job.model.vocabulary = 6;
    job.model.experts = 2;
  }
  void write(const std::string& name, const std::vector<std::int32_t>& tokens) {
    TokenFileWriter writer(scratch / name, 7);
    writer.append(tokens);
    writer.end_document();
    writer.finish();
    job.data.train.push_back(scratch / name);
  }
  std::vector<std::int32_t> table() { return make_hash_table(job, *solo); }

  test::Scratch scratch;
  std::unique_ptr<Backend> backend = make_cpu_backend();
  std::unique_ptr<Communicator> solo = make_solo(*backend);
  JobConfig job;
};

TEST_F(HashTables, AreBalancedByAllTrainingFilesTogetherOrAsTheyAreMixed) {
  write("a", {0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3});
  write("b", {5, 5, 5, 5});
  // 0: 5, 5: 4, 1: 3, 2: 2, 3: 1, 4: 0 times.
  EXPECT_EQ(table(), (std::vector<std::int32_t>{0, 1, 0, 0, 1, 1}));
  job.data.weights = {0.01, 1};  // now 5 comes first by far
  EXPECT_EQ(table(), (std::vector<std::int32_t>{1, 1, 1, 1, 1, 0}));
  write("c", {6});
  job.data.weights.clear();
  EXPECT_THAT(test::refusal(ExitCode::configuration, [&] { table(); }), HasSubstr("holds token 6"));
  job.routing.tokens = "balanced";
  EXPECT_TRUE(table().empty());
}

TEST_F(HashTables, AreHeldAgainstACheckpoints) {
  ParameterStore store;
  store.add_table("blocks.1.moe.table", 6, {0, 1, 0, 1, 0, 1});
  store.add({.name = "w", .shape = {1}, .initial = {}});
  store.seal(*backend, DType::f32, 1);
  check_tables(*backend, store, job, "step-00000002");
  const std::vector<std::int32_t> other = {0, 1, 1, 1, 1, 1};  // as if a checkpoint had brought it
  backend->upload(other.data(), store.tables()[0].view);
  EXPECT_THAT(test::refusal(ExitCode::configuration, [&] { check_tables(*backend, store, job, "step-00000002"); }),
              testing::AllOf(HasSubstr("2 of 6 token ids"), HasSubstr("'blocks.1.moe.table' in step-00000002"),
                             HasSubstr("token 2: to 0, not 1")));
  ParameterStore loaded;  // no values of its own: whatever the checkpoint brings
  loaded.add_table("blocks.1.moe.table", 6, {});
  loaded.seal(*backend, DType::f32, 1, false);
  backend->upload(other.data(), loaded.tables()[0].view);
  check_tables(*backend, loaded, job, "step-00000002");
}

}  // namespace
}  // namespace smlp
