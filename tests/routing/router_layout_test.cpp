// Routers that drop, draw and add losses give the same answer on any layout: the same global batch on all ranks of
// this program, in one round or in several, experts spread over them, against the same batch at once on one rank.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "tests/comm/ranks.h"
#include "tests/layers/tiny_model.h"

namespace smlp {
namespace {

using test::TinyModel;

constexpr std::int64_t sequences = 8, group_sequences = 2;

struct Case {
  const char* name;
  RouterSettings router;
};

std::vector<Case> cases() {
  RouterSettings jitter{.tokens = "switch"};
  jitter.softmax.jitter = 0.3;
  jitter.softmax.first = FirstChoice::sampling;
  jitter.softmax.order = PlaceOrder::random;
  jitter.softmax.auxiliary = {.balance_weight = 0.3, .z_weight = 0.1};
  RouterSettings sampling{.tokens = "gshard"};
  sampling.softmax.training.factor = 0.5;
  sampling.softmax.order = PlaceOrder::gate;
  sampling.softmax.auxiliary = {.balance_weight = 0.3, .average_layers = true, .negative_log = true};
  RouterSettings dropless{.tokens = "gshard"};
  dropless.softmax.training.factor = 0;
  dropless.softmax.second = SecondChoice::random;
  dropless.softmax.normalise = Normalise::before_dropping;
  RouterSettings sinkhorn{.tokens = "gshard"};
  sinkhorn.softmax.first = FirstChoice::sinkhorn;
  sinkhorn.softmax.second = SecondChoice::all;
  sinkhorn.softmax.normalise = Normalise::never;
  RouterSettings bias{.tokens = "switch"};
  bias.softmax.gate = GateKind::sigmoid;
  bias.softmax.bias_rate = 0.05;
  bias.softmax.training.factor = 0;
  bias.softmax.auxiliary = {.balance_weight = 0.3, .z_weight = 0.1, .every_choice = true};
  const RouterSettings hash{.tokens = "hash", .hash_table = {0, 0, 1, 3, 0, 2, 0, 0, 1, 0, 2}};
  return {{"switch with all its noise", jitter},
          {"gshard, scarce", sampling},
          {"gshard, dropless", dropless},
          {"gshard by Sinkhorn's shares", sinkhorn},
          {"switch with sigmoids and biases", bias},
          {"hash", hash}};
}

struct Answer {
  double loss = 0, auxiliary = 0;
  std::map<std::string, std::vector<double>> gradients;  // of whole tensors
};

struct Share {
  std::int64_t first, count;
};

Answer answer_of(TinyModel& m, const test::Batch& batch, std::span<const Share> shares, Communicator& ranks) {
  Answer answer;
  const double rows = static_cast<double>(batch.tokens.size());
  m.loss_scale = 1 / rows;
  m.store.zero_grad(m.backend);
  for (const Share& share : shares) {
    m.load(batch, share.first, share.count);
    m.c.auxiliary = m.memory.take({share.count / group_sequences, 2}, DType::f64);
    m.c.auxiliary_scale = m.memory.take({1}, DType::f64);
    m.backend.fill(m.c.auxiliary, 0);
    m.backend.fill(m.c.auxiliary_scale, 1 / rows);
    answer.loss += m.forward_loss();
    const auto per_group = test::read(m.backend, m.c.auxiliary);
    answer.auxiliary += m.config.router.softmax.auxiliary.total(per_group, group_sequences * m.c.length) / rows;
    m.backward();
  }
  ranks.all_reduce_host({&answer.loss, 1}, Reduce::sum);
  ranks.all_reduce_host({&answer.auxiliary, 1}, Reduce::sum);
  for (const auto& parameter : m.store.parameters()) {
    const auto slice = test::read(m.backend, parameter.grad);
    auto& whole = answer.gradients[parameter.name];
    whole.resize(slice.size() * static_cast<std::size_t>(parameter.shards), 0.0);
    std::copy(slice.begin(), slice.end(),
              whole.begin() + static_cast<std::ptrdiff_t>(parameter.shard) * static_cast<std::ptrdiff_t>(slice.size()));
    ranks.all_reduce_host(whole, Reduce::sum);
  }
  return answer;
}

void compare_with_one_rank(const Case& p, int expert_ranks, const std::vector<Share>& mine) {
  SCOPED_TRACE(fmt::format("{} over groups of {} ranks", p.name, expert_ranks));
  ModelConfig config = test::tiny_config({"gmlp", "smlp", "smlp"});
  config.router = p.router;
  config.group_sequences = group_sequences;
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  Communicator& world = test::world();
  const auto experts = world.split(world.rank() / expert_ranks, world.rank());
  const test::Batch batch = test::random_batch(config, sequences, 11);
  TinyModel one(config, *backend, *solo, DType::f64), spread(config, *backend, *experts, DType::f64);
  const std::vector<std::int32_t> bias = {3, -2, 0, -1};
  for (auto* m : {&one, &spread}) {
    for (const auto& table : m->store.tables()) {
      if (table.moves) m->backend.upload(bias.data(), table.view);
    }
  }
  const std::vector<Share> everything = {{0, sequences}};
  const Answer alone = answer_of(one, batch, everything, *solo), got = answer_of(spread, batch, mine, world);
  EXPECT_NEAR(got.loss, alone.loss, 1e-12);
  EXPECT_NEAR(got.auxiliary, alone.auxiliary, 1e-12);
  EXPECT_EQ(alone.auxiliary == 0, p.router.tokens == "hash");
  for (const auto& [name, expected] : alone.gradients) {
    const auto& found = got.gradients.at(name);
    ASSERT_EQ(found.size(), expected.size()) << name;
    for (std::size_t i = 0; i < found.size(); ++i) {
      ASSERT_NEAR(found[i], expected[i], 1e-12 * (1 + std::abs(expected[i]))) << name << "[" << i << "]";
    }
  }
}

TEST(RouterLayout, ChangesNeitherLossesNorGradients) {
  const int ranks = test::world().size(), rank = test::world().rank();
  const std::int64_t each = sequences / ranks;
  for (const auto& p : cases()) {
    for (const int size : {1, ranks}) {
      compare_with_one_rank(p, size, {{rank * each, each}});
      // In rounds of one group each, dealt out in turn.
      std::vector<Share> rounds;
      for (std::int64_t r = 0; r < each / group_sequences; ++r) {
        rounds.push_back({(r * ranks + rank) * group_sequences, group_sequences});
      }
      compare_with_one_rank(p, size, rounds);
    }
  }
}

TEST(RouterLayout, MayGiveRanksDifferentNumbersOfTokens) {
  // Other systems hang where ranks bring different numbers of tokens; here some bring none.
  const int ranks = test::world().size(), rank = test::world().rank();
  std::vector<Share> mine = {{2 * rank, rank + 1 == ranks ? 0 : 2}, {2 * (ranks - 1), 0}};
  if (rank + 1 == ranks) mine[1].count = sequences - 2 * (ranks - 1);
  for (const auto& p : cases()) compare_with_one_rank(p, ranks, mine);
}

}  // namespace
}  // namespace smlp
