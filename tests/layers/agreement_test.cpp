#include <gtest/gtest.h>

#include "tests/layers/tiny_model.h"

namespace smlp {
namespace {

using test::random_batch;
using test::tiny_config;
using test::TinyModel;

class RoutingCompared : public testing::Test {
 protected:
  RoutingReport report_of(TinyModel& m, std::int64_t sequences) {
    m.load(random_batch(m.config, sequences, 3), 0, sequences);
    m.c.mode = Mode::evaluation;
    std::vector<RoutingReport> reports;
    m.c.reports = &reports;
    m.c.compare_routing = true;
    m.forward_loss();
    m.c.reports = nullptr;
    EXPECT_EQ(reports.size(), 1u);
    return reports.at(0);
  }
  ModelConfig config() {
    auto config = tiny_config({"gmlp", "smlp"});
    config.context = 8;
    return config;
  }
  std::unique_ptr<Backend> backend = make_cpu_backend();
  std::unique_ptr<Communicator> solo = make_solo(*backend);
};

// Where no expert is better than another, evaluation sends all tokens to the first one, training a quarter of them.
TEST_F(RoutingCompared, TellsHowManyTokensTrainingWouldSendElsewhere) {
  TinyModel m(config(), *backend, *solo, DType::f64);
  backend->fill(m.store.find("blocks.1.tmoe.centroids").value, 0);
  const auto report = report_of(m, 3);
  EXPECT_EQ(report.block, 1);
  EXPECT_EQ(report.compared, 24);
  EXPECT_EQ(report.alike, 6);
  const std::vector<std::int64_t> tokens(report.expert_tokens.begin(), report.expert_tokens.end());
  EXPECT_EQ(tokens, (std::vector<std::int64_t>{24, 0, 0, 0})) << "of the evaluation itself";
}

TEST_F(RoutingCompared, ChangesNoAnswer) {
  TinyModel m(config(), *backend, *solo, DType::f64);
  const auto report = report_of(m, 3);
  EXPECT_EQ(report.compared, 24);
  EXPECT_GE(report.alike, 1);
  const double loss = m.forward_loss();
  m.c.compare_routing = false;
  EXPECT_EQ(m.forward_loss(), loss);
}

TEST_F(RoutingCompared, LeavesOutWhatIsNoWholeGroup) {
  auto grouped = config();
  grouped.group_sequences = 2;
  TinyModel m(grouped, *backend, *solo, DType::f64);
  EXPECT_EQ(report_of(m, 3).compared, 0);
  EXPECT_EQ(report_of(m, 4).compared, 32);
}

TEST_F(RoutingCompared, OneExpertLeavesNoChoice) {
  auto alone = config();
  alone.experts = 1;
  TinyModel m(alone, *backend, *solo, DType::f64);
  const auto report = report_of(m, 2);
  EXPECT_EQ(report.alike, report.compared);
}

}  // namespace
}  // namespace smlp
