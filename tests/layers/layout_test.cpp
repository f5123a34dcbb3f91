// The answer does not depend on the layout: the same global batch on all ranks of this program, experts
// spread over them or over groups of them, against the same batch on one rank.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "layers/plan.h"
#include "optim/adamw.h"
#include "optim/gradient_sync.h"
#include "tests/comm/ranks.h"
#include "tests/layers/tiny_model.h"

namespace smlp {
namespace {

using test::TinyModel;
using Gradients = std::map<std::string, std::vector<double>>;

struct Answer {
  double loss = 0;
  Gradients gradients;  // of whole tensors
};

// Parts of one global batch: a rank's first sequence and how many it has, round by round.
struct Share {
  std::int64_t first, count;
};

// The sum over the ranks of `ranks`, of this rank's slice placed in the whole tensor.
std::vector<double> whole_gradient(TinyModel& m, const Parameter& parameter, Communicator& ranks) {
  const auto slice = test::read(m.backend, parameter.grad);
  std::vector<double> whole(slice.size() * static_cast<std::size_t>(parameter.shards), 0.0);
  std::copy(slice.begin(), slice.end(),
            whole.begin() +
                static_cast<std::ptrdiff_t>(parameter.shard) * static_cast<std::ptrdiff_t>(slice.size()));
  ranks.all_reduce_host(whole, Reduce::sum);
  return whole;
}

Answer answer_of(TinyModel& m, const test::Batch& batch, std::span<const Share> shares, Communicator& ranks) {
  Answer answer;
  m.loss_scale = 1.0 / static_cast<double>(batch.tokens.size());
  m.store.zero_grad(m.backend);
  for (const Share& share : shares) {
    m.load(batch, share.first, share.count);
    answer.loss += m.forward_loss();
    if (m.c.training()) m.backward();
  }
  ranks.all_reduce_host({&answer.loss, 1}, Reduce::sum);
  for (const auto& parameter : m.store.parameters()) {
    answer.gradients[parameter.name] = whole_gradient(m, parameter, ranks);
  }
  return answer;
}

void expect_equal(const Answer& spread, const Answer& alone) {
  EXPECT_NEAR(spread.loss, alone.loss, 1e-12 * (1 + std::abs(alone.loss)));
  for (const auto& [name, expected] : alone.gradients) {
    const auto& found = spread.gradients.at(name);
    ASSERT_EQ(found.size(), expected.size()) << name;
    double most = 1;
    for (const double g : expected) most = std::max(most, std::abs(g));
    for (std::size_t i = 0; i < found.size(); ++i) {
      ASSERT_NEAR(found[i], expected[i], 1e-12 * most) << name << "[" << i << "]";
    }
  }
}

struct Setting {
  ModelConfig config;
  Mode mode = Mode::training;
  std::int64_t sequences = 8;
};

void compare_with_one_rank(const Setting& setting, int expert_ranks, const std::vector<Share>& mine) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  Communicator& world = test::world();
  const auto experts = world.split(world.rank() / expert_ranks, world.rank());
  const test::Batch batch = test::random_batch(setting.config, setting.sequences, 11);

  TinyModel one(setting.config, *backend, *solo, DType::f64);
  TinyModel spread(setting.config, *backend, *experts, DType::f64);
  one.c.mode = spread.c.mode = setting.mode;
  const std::vector<Share> everything = {{0, setting.sequences}};
  const Answer alone = answer_of(one, batch, everything, *solo);
  EXPECT_GT(alone.loss, 0.1);
  expect_equal(answer_of(spread, batch, mine, world), alone);
}

Setting sparse(std::int64_t experts) {
  Setting setting{test::tiny_config({"gmlp", "smlp", "smlp"})};
  setting.config.experts = experts;
  setting.config.group_sequences = 2;
  setting.config.dropout = 0.2;
  return setting;
}

std::vector<Share> even_share(std::int64_t sequences) {
  const std::int64_t each = sequences / test::world().size();
  return {{test::world().rank() * each, each}};
}

// Expert groups of the whole world, of halves of it, of single ranks.
std::vector<int> group_sizes(std::int64_t experts) {
  std::vector<int> sizes;
  for (int size = 1; size <= test::world().size(); size *= 2) {
    if (experts % size == 0 && test::world().size() % size == 0) sizes.push_back(size);
  }
  return sizes;
}

TEST(Layout, ChangesNeitherLossNorGradients) {
  for (const std::int64_t experts : {4, 2, 8}) {
    for (const int size : group_sizes(experts)) {
      SCOPED_TRACE(fmt::format("{} experts over groups of {} ranks", experts, size));
      compare_with_one_rank(sparse(experts), size, even_share(8));
    }
  }
}

// Every way of sending tokens or channels to experts.
std::vector<Setting> every_kind() {
  std::vector<Setting> all;
  for (const char* kind : {"base", "hash", "switch", "gshard"}) all.push_back({test::tiny_config({"transformer", kind})});
  all.push_back({test::tiny_config({"gmlp-token-moe", "gmlp-token-moe"})});
  all.push_back({test::tiny_config({"transformer", "base"})});
  all.back().config.expert_layers = 2;
  for (const char* channels : {"partial", "leaky"}) {
    all.push_back({test::tiny_config({"gmlp", "smlp"})});
    all.back().config.channels = channels;
    all.back().config.allow_leak = true;
  }
  for (auto& setting : all) {
    setting.config.group_sequences = 2;
    setting.config.dropout = 0.2;
  }
  return all;
}

TEST(Layout, ChangesNoKindOfModel) {
  const int ranks = test::world().size(), rank = test::world().rank();
  for (Setting& setting : every_kind()) {
    for (const int size : group_sizes(4)) {
      SCOPED_TRACE(fmt::format("{}, {}, groups of {} ranks", setting.config.stack.back(), setting.config.channels, size));
      setting.mode = Mode::training;
      compare_with_one_rank(setting, size, even_share(8));
      std::vector<Share> uneven = {{2 * rank, rank + 1 == ranks ? 0 : 2}, {2 * (ranks - 1), 0}};
      if (rank + 1 == ranks) uneven[1].count = 8 - 2 * (ranks - 1);
      compare_with_one_rank(setting, size, uneven);
      setting.mode = Mode::evaluation;
      compare_with_one_rank(setting, size, even_share(8));
    }
  }
}

TEST(Layout, MayGiveRanksDifferentNumbersOfSequences) {
  const int ranks = test::world().size(), rank = test::world().rank();
  // The last rank has nothing in the first round and everything in the second, where the others have nothing.
  std::vector<Share> mine = {{2 * rank, rank + 1 == ranks ? 0 : 2}, {2 * (ranks - 1), 0}};
  if (rank + 1 == ranks) mine[1].count = 8 - 2 * (ranks - 1);
  for (const int size : group_sizes(4)) {
    SCOPED_TRACE(fmt::format("groups of {} ranks", size));
    compare_with_one_rank(sparse(4), size, mine);
  }
}

TEST(Layout, ChangesNoEvaluation) {
  const int ranks = test::world().size(), rank = test::world().rank();
  for (const int size : group_sizes(4)) {
    SCOPED_TRACE(fmt::format("groups of {} ranks", size));
    Setting setting = sparse(4);
    setting.mode = Mode::evaluation;
    setting.config.group_sequences = 8;  // groups mean nothing here
    compare_with_one_rank(setting, size, even_share(8));
    setting.sequences = 5;  // one each, the rest to rank 0; the last of four has none
    std::vector<Share> mine = {{rank, rank < 3 ? 1 : 0}};
    if (rank == 0) mine = {{3, 2}, {0, 1}};
    if (rank != 0) mine.insert(mine.begin(), {0, 0});
    if (ranks == 2 && rank == 1) mine = {{1, 2}, {0, 0}};
    compare_with_one_rank(setting, size, mine);
  }
}

TEST(Layout, SyncedGradientsAreThoseOfOneRankAndSoIsTheirNorm) {
  Setting setting = sparse(4);
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  const test::Batch batch = test::random_batch(setting.config, 8, 11);
  TinyModel one(setting.config, *backend, *solo, DType::f64);
  const std::vector<Share> everything = {{0, 8}};
  const Answer alone = answer_of(one, batch, everything, *solo);
  double squared_norm = 0;
  for (const auto& [name, gradient] : alone.gradients) {
    for (const double g : gradient) squared_norm += g * g;
  }
  const std::int64_t each = 8 / test::world().size();
  for (const int size : group_sizes(4)) {
    SCOPED_TRACE(fmt::format("groups of {} ranks", size));
    ProcessGrid grid = ProcessGrid::cut(test::world().split(0, test::world().rank()), size);
    TinyModel m(setting.config, *backend, *grid.experts, DType::f64);
    GradientSync sync(*backend, m.store, grid, m.model->blocks());
    m.loss_scale = 1.0 / static_cast<double>(batch.tokens.size());
    m.load(batch, test::world().rank() * each, each);
    m.forward_loss();
    m.model->backward(m.c, [&](int k) { sync.block_done(k); });
    sync.finish();
    const TensorView control = m.memory.take({StepControl::size}, DType::f64);
    backend->fill(control, 0);
    sync.squared_norm(control);
    EXPECT_NEAR(test::read(*backend, control)[StepControl::squared_norm], squared_norm, 1e-12 * squared_norm);
    for (const auto& parameter : m.store.parameters()) {
      const auto synced = test::read(*backend, parameter.grad);
      const auto& whole = alone.gradients.at(parameter.name);
      const std::size_t first = static_cast<std::size_t>(parameter.shard) * synced.size();
      for (std::size_t i = 0; i < synced.size(); ++i) {
        ASSERT_NEAR(synced[i], whole[first + i], 1e-12 * (1 + std::abs(whole[first + i]))) << parameter.name;
      }
    }
  }
}

TEST(Layout, ThePlanCountsTheStatesThatAShareTakes) {
  Setting setting = sparse(4);
  auto backend = make_cpu_backend();
  const int ranks = test::world().size();
  for (const int size : group_sizes(4)) {
    for (const auto type : {DType::f32, DType::bf16}) {
      ProcessGrid grid = ProcessGrid::cut(test::world().split(0, test::world().rank()), size);
      TinyModel m(setting.config, *backend, *grid.experts, type);
      for (const bool sharded : {false, true}) {
        const GradientSync sync(*backend, m.store, grid, m.model->blocks(), sharded);
        const AdamW adamw(*backend, m.store, {}, sync.shares());
        const auto plan = count_model(setting.config, ranks, size, 2, type, 1, sharded);
        const std::int64_t states = adamw.state_bytes() - StepControl::size * size_of(DType::f64);
        EXPECT_EQ(plan.memory.optimizer, states) << fmt::format("groups of {} ranks, sharded: {}", size, sharded);
        EXPECT_EQ(plan.memory.optimizer_saved > 0, sharded);
        const auto whole = count_model(setting.config, ranks, size, 2, type, 1);
        EXPECT_EQ(plan.memory.optimizer + plan.memory.optimizer_saved, whole.memory.optimizer);
        EXPECT_EQ(whole.memory.total - plan.memory.total, plan.memory.optimizer_saved);
      }
    }
  }
}

TEST(Layout, DenseModelsTalkToNobody) {
  Setting setting{test::tiny_config({"gmlp"})};
  auto backend = make_cpu_backend();
  const auto split = test::world().split(0, test::world().rank());
  TinyModel m(setting.config, *backend, *split, DType::f64);
  m.load(test::random_batch(setting.config, 2, 1), 0, 2);
  m.forward_loss();
  m.backward();
  EXPECT_EQ(split->bytes_sent(), 0);
}

}  // namespace
}  // namespace smlp
