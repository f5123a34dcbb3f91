#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/error.h"
#include "tests/metrics/reports.h"

namespace smlp {
namespace {

// The value of the line of a scrape that begins with this series, or NaN when there is none.
double value_of(const std::string& text, const std::string& series) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(series + " ")) return std::stod(line.substr(series.size() + 1));
  }
  ADD_FAILURE() << "no series " << series << " in:\n" << text;
  return std::nan("");
}

TEST(Metrics, HaveTheNamesAndTypesThatUsersRelyOn) {
  RunMetrics metrics(test::small_run(0));
  metrics.publish(test::small_step(1));
  metrics.skipped_updates("nonfinite", 1);
  metrics.spikes("rewind", 2);
  const auto text = metrics.text();
  const std::vector<std::pair<std::string, std::string>> wanted = {
      {"smlp_step", "gauge"},
      {"smlp_steps_total", "counter"},
      {"smlp_tokens_total", "counter"},
      {"smlp_loss", "gauge"},
      {"smlp_learning_rate", "gauge"},
      {"smlp_gradient_norm", "gauge"},
      {"smlp_step_seconds", "histogram"},
      {"smlp_phase_seconds_total", "counter"},
      {"smlp_tokens_per_second", "gauge"},
      {"smlp_flops_share", "gauge"},
      {"smlp_expert_tokens_total", "counter"},
      {"smlp_expert_balance", "gauge"},
      {"smlp_routing_entropy", "gauge"},
      {"smlp_dropped_tokens_total", "counter"},
      {"smlp_assignment_rounds", "gauge"},
      {"smlp_loss_scale", "gauge"},
      {"smlp_auxiliary_loss", "gauge"},
      {"smlp_balance_loss", "gauge"},
      {"smlp_z_loss", "gauge"},
      {"smlp_checkpoint_seconds", "histogram"},
      {"smlp_checkpoint_stall_seconds_total", "counter"},
      {"smlp_checkpoint_bytes_total", "counter"},
      {"smlp_checkpoint_failures_total", "counter"},
      {"smlp_checkpoint_last_step", "gauge"},
      {"smlp_checkpoint_last_timestamp_seconds", "gauge"},
      {"smlp_restarts_total", "counter"},
      {"smlp_skipped_updates_total", "counter"},
      {"smlp_spikes_total", "counter"},
      {"smlp_attempt", "gauge"},
      {"smlp_validation_loss", "gauge"},
      {"smlp_build_info", "gauge"}};
  for (const auto& [name, type] : wanted) {
    EXPECT_NE(text.find("# TYPE " + name + " " + type + "\n"), std::string::npos) << name;
    EXPECT_NE(text.find("# HELP " + name + " "), std::string::npos) << name;
  }
  for (const auto* phase :
       {"forward", "backward", "exchange", "reduce", "optimizer", "data", "checkpoint", "other"}) {
    EXPECT_NE(text.find(std::string("phase=\"") + phase + "\""), std::string::npos) << phase;
  }
  EXPECT_EQ(value_of(text, "smlp_build_info{device=\"cpu\",isa=\"avx2\",rank=\"0\",version=\"0.1.0\"}"), 1);
}

// sum() over the ranks counted each token as often as there are ranks, and nothing said that it would.
TEST(Metrics, SayOfATotalThatEachRankHasHowItIsTakenTogether) {
  RunMetrics metrics(test::small_run(0));
  metrics.publish(test::small_step(1));
  metrics.skipped_updates("spike", 1);
  metrics.spikes("skip", 1);
  std::istringstream lines(metrics.text());
  int said = 0;
  for (std::string line; std::getline(lines, line);) {
    for (const char* name : {"smlp_steps_total", "smlp_tokens_total", "smlp_expert_tokens_total",
                             "smlp_dropped_tokens_total", "smlp_skipped_updates_total", "smlp_spikes_total",
                             "smlp_checkpoint_failures_total", "smlp_restarts_total"}) {
      if (line.starts_with(std::string("# HELP ") + name + " ")) said += line.ends_with("max over ranks, not sum") ? 1 : 0;
    }
  }
  EXPECT_EQ(said, 8);
}

TEST(Metrics, CarryTheRankOnEverySeries) {
  RunMetrics metrics(test::small_run(3));
  metrics.publish(test::small_step(1));
  std::istringstream lines(metrics.text());
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("#")) continue;
    EXPECT_NE(line.find("rank=\"3\""), std::string::npos) << line;
  }
}

TEST(Metrics, HoldWhatWasPublished) {
  RunMetrics metrics(test::small_run(0));
  metrics.publish(test::small_step(1));
  metrics.publish(test::small_step(2));
  const auto text = metrics.text();
  EXPECT_EQ(value_of(text, "smlp_step{rank=\"0\"}"), 2);
  EXPECT_EQ(value_of(text, "smlp_steps_total{rank=\"0\"}"), 2);
  EXPECT_EQ(value_of(text, "smlp_tokens_total{rank=\"0\"}"), 4096);
  EXPECT_EQ(value_of(text, "smlp_loss{rank=\"0\"}"), 5.5);
  EXPECT_EQ(value_of(text, "smlp_learning_rate{rank=\"0\"}"), 0.25);
  EXPECT_EQ(value_of(text, "smlp_gradient_norm{rank=\"0\"}"), 1.5);
  EXPECT_EQ(value_of(text, "smlp_tokens_per_second{rank=\"0\"}"), 4096);
  EXPECT_EQ(value_of(text, "smlp_flops_share{rank=\"0\"}"), 0.75);
  EXPECT_EQ(value_of(text, "smlp_step_seconds_count{rank=\"0\"}"), 2);
  EXPECT_EQ(value_of(text, "smlp_step_seconds_sum{rank=\"0\"}"), 1);
  EXPECT_EQ(value_of(text, "smlp_phase_seconds_total{phase=\"backward\",rank=\"0\"}"), 0.5);
  EXPECT_EQ(value_of(text, "smlp_expert_tokens_total{block=\"4\",expert=\"1\",rank=\"0\"}"), 2048);
  EXPECT_EQ(value_of(text, "smlp_expert_balance{block=\"1\",rank=\"0\"}"), 1);
  EXPECT_EQ(value_of(text, "smlp_expert_balance{block=\"4\",rank=\"0\"}"), 2);
  EXPECT_EQ(value_of(text, "smlp_routing_entropy{block=\"4\",rank=\"0\"}"), 0.5);
  EXPECT_EQ(value_of(text, "smlp_dropped_tokens_total{block=\"4\",rank=\"0\"}"), 6);
  EXPECT_EQ(value_of(text, "smlp_assignment_rounds{block=\"4\",rank=\"0\"}"), 9);
  EXPECT_EQ(value_of(text, "smlp_attempt{rank=\"0\"}"), 2);
}

TEST(Metrics, HoldCheckpointsRestartsAndValidation) {
  RunMetrics metrics(test::small_run(0));
  EXPECT_TRUE(std::isnan(value_of(metrics.text(), "smlp_validation_loss{rank=\"0\"}")));
  EXPECT_TRUE(std::isnan(value_of(metrics.text(), "smlp_checkpoint_last_timestamp_seconds{rank=\"0\",tier=\"shared\"}")));
  metrics.checkpoint_found("shared", 40, 900.5);
  EXPECT_EQ(value_of(metrics.text(), "smlp_checkpoint_last_step{rank=\"0\",tier=\"shared\"}"), 40);
  metrics.checkpoint_stalled(0.25);
  metrics.checkpoint_published("shared", 50, 2.5, 1'000'000, 1000.5);
  metrics.checkpoint_failed("shared");
  metrics.restarts("signal", 2);
  metrics.restarts("signal", 1);  // never back
  metrics.restarts("an unheard-of reason", 4);
  metrics.evaluated({.validation_loss = 4.25});
  const auto text = metrics.text();
  EXPECT_EQ(value_of(text, "smlp_checkpoint_last_step{rank=\"0\",tier=\"shared\"}"), 50);
  EXPECT_EQ(value_of(text, "smlp_checkpoint_last_timestamp_seconds{rank=\"0\",tier=\"shared\"}"), 1000.5);
  EXPECT_EQ(value_of(text, "smlp_checkpoint_seconds_count{rank=\"0\",tier=\"shared\"}"), 1);
  EXPECT_EQ(value_of(text, "smlp_checkpoint_bytes_total{rank=\"0\",tier=\"shared\"}"), 1'000'000);
  EXPECT_EQ(value_of(text, "smlp_checkpoint_stall_seconds_total{rank=\"0\"}"), 0.25);
  EXPECT_EQ(value_of(text, "smlp_checkpoint_failures_total{rank=\"0\",tier=\"shared\"}"), 1);
  EXPECT_EQ(value_of(text, "smlp_restarts_total{rank=\"0\",reason=\"signal\"}"), 2);
  EXPECT_EQ(value_of(text, "smlp_restarts_total{rank=\"0\",reason=\"other\"}"), 4);
  EXPECT_EQ(value_of(text, "smlp_validation_loss{rank=\"0\"}"), 4.25);
}

// Attempts whose launcher was killed counted as "other", and of two reasons that did the smaller number was lost.
TEST(Metrics, EveryRestartCountsOnceWhateverItsReason) {
  RunMetrics metrics(test::small_run(0));
  metrics.restarts("launcher", 3);
  metrics.restarts("an unheard-of reason", 4);
  metrics.restarts("another", 2);
  metrics.restarts("another", 2);
  const auto text = metrics.text();
  EXPECT_EQ(value_of(text, "smlp_restarts_total{rank=\"0\",reason=\"launcher\"}"), 3);
  EXPECT_EQ(value_of(text, "smlp_restarts_total{rank=\"0\",reason=\"other\"}"), 6);
}

TEST(Metrics, KeepTiersOfSavesApart) {
  RunMetrics metrics(test::small_run(0));
  EXPECT_EQ(metrics.text().find("tier=\"local\""), std::string::npos);
  metrics.checkpoint_published("local", 12, 0.5, 10, 1.0);
  metrics.checkpoint_failed("local");
  metrics.checkpoint_failed("local");
  metrics.checkpoint_interval("local", 30.5);
  const auto text = metrics.text();
  EXPECT_EQ(value_of(text, "smlp_checkpoint_failures_total{rank=\"0\",tier=\"local\"}"), 2);
  EXPECT_EQ(value_of(text, "smlp_checkpoint_failures_total{rank=\"0\",tier=\"shared\"}"), 0);
  EXPECT_EQ(value_of(text, "smlp_checkpoint_last_step{rank=\"0\",tier=\"local\"}"), 12);
  EXPECT_TRUE(std::isnan(value_of(text, "smlp_checkpoint_last_step{rank=\"0\",tier=\"shared\"}")));
  EXPECT_EQ(value_of(text, "smlp_checkpoint_interval_seconds{rank=\"0\",tier=\"local\"}"), 30.5);
}

// A restart goes back to a checkpoint: 22954 steps, then 21242, are 21242 more to Prometheus.
TEST(Metrics, CountFromNothingInEachAttemptAndTellThePlace) {
  RunMetrics metrics(test::small_run(0));
  metrics.resume(120, 240'000);
  EXPECT_EQ(value_of(metrics.text(), "smlp_step{rank=\"0\"}"), 120);
  for (const char* counter : {"smlp_steps_total{rank=\"0\"}", "smlp_tokens_total{rank=\"0\"}"}) {
    EXPECT_EQ(value_of(metrics.text(), counter), 0) << counter;
  }
  const auto report = test::small_step(121);
  metrics.publish(report);
  EXPECT_EQ(value_of(metrics.text(), "smlp_step{rank=\"0\"}"), 121);
  EXPECT_EQ(value_of(metrics.text(), "smlp_steps_total{rank=\"0\"}"), 1);
  EXPECT_EQ(value_of(metrics.text(), "smlp_tokens_total{rank=\"0\"}"), 2048);
  const auto line = metrics.to_json(report, 1.0);
  EXPECT_EQ(line["steps_total"], 121) << "a line of the run's history";
  EXPECT_EQ(line["tokens_total"], 242'048);
}

TEST(Metrics, KeepLabelsWithinTheModel) {
  RunMetrics metrics(test::small_run(0));
  auto report = test::small_step(1);
  report.phase_seconds = {{"a phase nobody knows", 2.0}, {"other", 1.0}};
  metrics.publish(report);
  EXPECT_EQ(metrics.text().find("nobody knows"), std::string::npos);
  EXPECT_EQ(value_of(metrics.text(), "smlp_phase_seconds_total{phase=\"other\",rank=\"0\"}"), 3);
  report.blocks[0].block = 6;
  EXPECT_THROW(metrics.publish(report), Error);
  report.blocks[0] = {.block = 1, .expert_tokens = {1, 1, 1, 1, 1}};
  EXPECT_THROW(metrics.publish(report), Error);
  const auto text = metrics.text();
  EXPECT_LT(std::count(text.begin(), text.end(), '\n'), 200);
}

TEST(Routing, BalanceIsMaximumOverMean) {
  EXPECT_EQ(expert_balance(std::vector<double>{3, 1, 0, 0}), 3);
  EXPECT_EQ(expert_balance(std::vector<double>{5, 5}), 1);
  EXPECT_TRUE(std::isnan(expert_balance(std::vector<double>{0, 0})));
  EXPECT_TRUE(std::isnan(expert_balance({})));
}

TEST(Routing, EntropyIsOneWhenEvenAndNothingWhenOneExpertTakesAll) {
  EXPECT_DOUBLE_EQ(routing_entropy(std::vector<double>{2, 2, 2}), 1);
  EXPECT_DOUBLE_EQ(routing_entropy(std::vector<double>{8, 0, 0, 0}), 0);
  EXPECT_DOUBLE_EQ(routing_entropy(std::vector<double>{1, 3}),
                   -(0.25 * std::log2(0.25) + 0.75 * std::log2(0.75)));
  EXPECT_DOUBLE_EQ(routing_entropy(std::vector<double>{7}), 1);
  EXPECT_TRUE(std::isnan(routing_entropy(std::vector<double>{0, 0})));
}

TEST(MetricsLine, HoldsTheSameNumbers) {
  RunMetrics metrics(test::small_run(0));
  metrics.resume(10, 20'480);
  metrics.checkpoint_published("shared", 10, 1, 1, 1);
  auto report = test::small_step(11);
  report.evaluation = {.validation_loss = 5.25, .routing_agreement = 0.625, .block_agreement = {{1, 0.5}, {4, 0.75}}};
  metrics.evaluated(*report.evaluation);
  report.auxiliary_loss = 0.03125;
  report.balance_loss = 2.5;
  report.z_loss = 6.75;
  report.loss_scale = 4096;
  EXPECT_TRUE(std::isnan(value_of(metrics.text(), "smlp_balance_loss{rank=\"0\"}"))) << "before a gate has told any";
  metrics.publish(report);
  EXPECT_EQ(value_of(metrics.text(), "smlp_routing_agreement{block=\"4\",rank=\"0\"}"), 0.75);
  const auto line = metrics.to_json(report, 1234.5);
  EXPECT_EQ(line["routing_agreement"], 0.625);
  EXPECT_EQ(value_of(metrics.text(), "smlp_auxiliary_loss{rank=\"0\"}"), 0.03125);
  EXPECT_EQ(value_of(metrics.text(), "smlp_balance_loss{rank=\"0\"}"), 2.5);
  EXPECT_EQ(value_of(metrics.text(), "smlp_z_loss{rank=\"0\"}"), 6.75);
  EXPECT_EQ(line["auxiliary_loss"], 0.03125);
  EXPECT_EQ(line["balance_loss"], 2.5);
  EXPECT_EQ(line["z_loss"], 6.75);
  EXPECT_EQ(value_of(metrics.text(), "smlp_loss_scale{rank=\"0\"}"), 4096);
  EXPECT_EQ(line["loss_scale"], 4096);
  EXPECT_EQ(line["step"], 11);
  EXPECT_EQ(line["attempt"], 2);
  EXPECT_EQ(line["time"], 1234.5);
  EXPECT_EQ(line["loss"], 5.5);
  EXPECT_EQ(line["step_seconds"], 0.5);
  EXPECT_EQ(line["tokens"], 2048);
  EXPECT_EQ(line["steps_total"].dump(), "11");
  EXPECT_EQ(line["tokens_total"].dump(), "22528");
  EXPECT_EQ(line["checkpoint_last_step"], 10);
  EXPECT_EQ(line["phase_seconds"]["backward"], 0.25);
  EXPECT_EQ(line["blocks"].size(), 2U);
  EXPECT_EQ(line["blocks"][1]["block"], 4);
  EXPECT_EQ(line["blocks"][1]["expert_balance"], 2);
  EXPECT_EQ(line["blocks"][1]["routing_entropy"], 0.5);
  EXPECT_EQ(line["blocks"][1]["expert_tokens"], (std::vector<double>{1024, 1024, 0, 0}));
  EXPECT_EQ(line["blocks"][1]["dropped_tokens"], 3);
  EXPECT_EQ(line["blocks"][1]["assignment_rounds"], 9);
  EXPECT_EQ(line["validation_loss"], 5.25);
}

TEST(MetricsLine, IsOneShortLineThatReadsBackWhateverTheNumbers) {
  RunMetrics metrics(test::small_run(0));
  auto report = test::small_step(1);
  report.loss = std::nan("");
  report.gradient_norm = INFINITY;
  metrics.publish(report);
  const auto text = metrics.to_json(report, 1.0).dump();
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_LT(text.size(), 2048U);
  const auto read = nlohmann::json::parse(text);
  EXPECT_TRUE(read["loss"].is_null());
  EXPECT_TRUE(read["gradient_norm"].is_null());
  EXPECT_TRUE(read["checkpoint_last_step"].is_null());
  EXPECT_FALSE(read.contains("validation_loss"));
  EXPECT_FALSE(read.contains("routing_agreement"));
  EXPECT_FALSE(read.contains("z_loss"));
}

}  // namespace
}  // namespace smlp
