// Under mpirun: training whose optimiser states are shared out among the ranks, against training where each holds all.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "core/random.h"
#include "tests/checkpoint/sample.h"
#include "tests/comm/ranks.h"
#include "worker/engine.h"
#include "worker/load_together.h"
#include "worker/replica_check.h"
#include "worker/texts.h"

namespace smlp::test {
namespace {

int rank() { return world().rank(); }
int ranks() { return world().size(); }

// A batch that only one rank or five divide.
JobConfig job_of(const std::string& precision, bool sharded, double clip_norm = 0.01) {
  JobConfig job;
  job.model.context = 8;
  job.model.width = 32;
  job.model.hidden = 64;
  job.model.dense_blocks = 2;
  job.model.sparse_blocks = 1;
  job.model.experts = 4;
  job.model.vocabulary = 64;
  job.model.dropout = 0.1;
  job.train.precision = precision;
  job.train.loss_scale = 256;
  job.train.micro_batch = job.routing.group_sequences = 1;
  job.train.global_batch = 5;
  job.schedule.kind = "constant";
  job.schedule.warmup_steps = 0;
  job.optimizer.clip_norm = clip_norm;
  job.optimizer.shard_states = sharded;
  return job;
}

using Tensors = std::map<std::string, std::vector<double>>;  // whole ones, parameters and states

class Training {
 public:
  explicit Training(const JobConfig& job, int expert_ranks = 1)
      : job_(job), engine(job, make_cpu_backend(), ProcessGrid::cut(world().split(0, rank()), expert_ranks), true) {
    pieces = engine.pieces(true);
  }

  StepResult step(const MayUpdate& may_update = {}, int poisoned = -1) {
    const RandomStream random(3, "tokens");
    const ReadBatch read = [&](std::int64_t position, std::int64_t count, std::int64_t, const std::int32_t*& in,
                               const std::int32_t*& wanted) {
      tokens_.clear();
      targets_.clear();
      for (std::int64_t i = 0; i < count * job_.model.context; ++i) {
        const auto place = static_cast<std::uint64_t>(position * job_.model.context + i);
        tokens_.push_back(static_cast<std::int32_t>(random.bits(place) % 64));
        targets_.push_back((tokens_.back() * 7 + 3) % 64);
      }
      in = tokens_.data();
      wanted = targets_.data();
      if (poisoned != rank()) return;
      const auto& grad = engine.store().parameters().front().grad;
      engine.backend().fill(grad.row_range(0, 1), std::numeric_limits<double>::quiet_NaN());
    };
    const auto first = steps_++ * job_.train.global_batch;
    return engine.train_step(steps_, first, read, {}, [] {}, may_update);
  }

  // Put together from what the ranks write, each element by one of them.
  Tensors tensors() {
    Tensors all;
    auto& backend = engine.backend();
    for (const auto& piece : pieces) {
      auto& whole = all[piece.name];
      whole.resize(static_cast<std::size_t>(piece.global_shape.size()));
      if (!piece.mine || piece.local.size() == 0) continue;
      void* memory = backend.allocate(piece.local.size() * size_of(DType::f64));
      const TensorView wide(memory, {piece.local.size()}, DType::f64);
      backend.copy(piece.local.reshaped({piece.local.size()}), wide);
      backend.download(wide, whole.data() + piece.offset);
      backend.release(memory);
    }
    for (auto& [name, whole] : all) world().all_reduce_host(whole, Reduce::sum);
    return all;
  }

 private:
  JobConfig job_;
  std::vector<std::int32_t> tokens_, targets_;
  std::int64_t steps_ = 0;

 public:
  Engine engine;
  std::vector<Piece> pieces;
};

double farthest(const Tensors& a, const Tensors& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (const auto& [name, values] : a) {
    const auto& others = b.at(name);
    EXPECT_EQ(values.size(), others.size()) << name;
    double largest = 0, scale = 1e-30;
    for (std::size_t i = 0; i < values.size(); ++i) {
      largest = std::max(largest, std::abs(values[i] - others[i]));
      scale = std::max(scale, std::abs(others[i]));
    }
    most = std::max(most, largest / scale);
  }
  return most;
}

std::vector<int> group_sizes() {
  std::vector<int> sizes = {1};
  for (const int size : {2, 4}) {
    if (ranks() % size == 0) sizes.push_back(size);
  }
  return sizes;
}

TEST(Shards, TrainAsIfEachRankHeldAllStates) {
  for (const int size : group_sizes()) {
    SCOPED_TRACE(fmt::format("groups of {} ranks", size));
    Training whole(job_of("f64", false), size), sharded(job_of("f64", true), size);
    for (int step = 0; step < 3; ++step) {
      const auto a = whole.step(), b = sharded.step();
      EXPECT_GT(a.gradient_norm, 0.01) << "clipping has something to do";
      EXPECT_NEAR(b.loss, a.loss, 1e-12 * a.loss);
      EXPECT_NEAR(b.gradient_norm, a.gradient_norm, 1e-12 * a.gradient_norm);
      EXPECT_TRUE(b.updated);
    }
    EXPECT_LT(farthest(sharded.tensors(), whole.tensors()), 1e-12);
    EXPECT_EQ(sharded.engine.updates(), 3);
  }
}

TEST(Shards, OfSeveralBucketsGiveTheSameToo) {
  auto job = job_of("f64", false);
  job.model.width = 256;
  job.model.hidden = 1024;
  job.model.experts = group_sizes().back();
  Training whole(job, group_sizes().back());
  job.optimizer.shard_states = true;
  Training sharded(job, group_sizes().back());
  ASSERT_GT(sharded.engine.store().segments()[0].grad.bytes(), std::int64_t{4} << 20) << "more than one bucket";
  for (int step = 0; step < 2; ++step) {
    EXPECT_NEAR(whole.step().loss, sharded.step().loss, 1e-11);
  }
  EXPECT_LT(farthest(sharded.tensors(), whole.tensors()), 1e-12);
}

// Sums of two are the same in any order, so nothing but the order of the norm's sum could differ.
TEST(Shards, GiveTheSameBitsWhereSumsHaveNoOrder) {
  for (const char* precision : {"f32", "bf16", "fp16", "f64"}) {
    Training whole(job_of(precision, false, 0), 1), sharded(job_of(precision, true, 0), 1);
    for (int step = 0; step < 3; ++step) {
      whole.step();
      sharded.step();
    }
    const double limit = ranks() <= 2 ? 0 : precision == std::string("f64") ? 1e-12 : 2e-2;
    EXPECT_LE(farthest(sharded.tensors(), whole.tensors()), limit) << precision;
  }
}

TEST(Shards, HoldEachStateOnOneRankAndTheParametersOnAll) {
  for (const int size : group_sizes()) {
    Training sharded(job_of("bf16", true), size);
    std::map<std::string, double> held;
    std::int64_t states = 0, all = 0;
    for (const auto& piece : sharded.pieces) {
      const bool state = piece.name.starts_with("adam.");
      EXPECT_EQ(piece.alone, state && ranks() > 1) << piece.name;
      if (!state) continue;
      held[piece.name] += static_cast<double>(piece.local.size());
      states += piece.local.bytes();
      all += piece.global_shape.size() * size_of(piece.local.dtype);
    }
    for (auto& [name, elements] : held) {
      world().all_reduce_host({&elements, 1}, Reduce::sum);
      for (const auto& piece : sharded.pieces) {
        if (piece.name != name || ranks() == 1) continue;
        EXPECT_EQ(elements, piece.global_shape.size()) << name;
      }
    }
    EXPECT_NEAR(static_cast<double>(states), static_cast<double>(all) / ranks(), 16.0 * 1024);
  }
}

TEST(Shards, LeaveAllAloneTogetherWhenAnUpdateIsLeftOut) {
  Training sharded(job_of("bf16", true), group_sizes().back());
  sharded.step();
  const auto before = sharded.tensors();
  EXPECT_FALSE(sharded.step([](const StepResult&) { return false; }).updated);
  EXPECT_EQ(sharded.tensors(), before);
  EXPECT_EQ(sharded.engine.updates(), 1) << "nor is it counted: the learning rate and the bias corrections go by that";
  const int culprit = ranks() - 1;
  sharded.engine.watch_gradients(true);
  const auto poisoned = sharded.step({}, culprit);
  EXPECT_FALSE(poisoned.updated) << "one element in one rank's share is not finite";
  EXPECT_EQ(poisoned.own_finite.gradient, rank() != culprit);
  EXPECT_EQ(sharded.tensors(), before);
  EXPECT_EQ(sharded.engine.updates(), 1);
  EXPECT_TRUE(sharded.step().updated);
  EXPECT_NE(sharded.tensors(), before);
}

TEST(Shards, AreNoCopiesToBeComparedButParametersAre) {
  Training sharded(job_of("f32", true), group_sizes().back());
  const auto compare = [&] {
    return compare_replicas(sharded.engine.backend(), sharded.engine.grid(), sharded.pieces);
  };
  for (int step = 0; step < 2; ++step) sharded.step();
  EXPECT_EQ(compare(), "") << "every share of the values came to every rank";
  const auto flip = [&](const std::string& name) {
    for (const auto& piece : sharded.pieces) {
      if (piece.name == name && piece.local.size() > 0 && rank() == ranks() - 1) *piece.local.as<unsigned char>() ^= 1;
    }
  };
  if (ranks() == 1) return;
  flip("adam.v/embed.weight");
  EXPECT_EQ(compare(), "");
  flip("embed.weight");
  EXPECT_THAT(compare(), testing::HasSubstr("'embed.weight'"));
  // The next update writes every copy anew from one rank's.
  sharded.step();
  EXPECT_EQ(compare(), "");
}

// What is saved by shares is read whole, and the other way round; both go on alike.
TEST(Shards, OfACheckpointAreReadByRanksThatHoldAllAndTheReverse) {
  const Scratch scratch;
  const std::filesystem::path root = broadcast_text(world(), rank() == 0 ? scratch.root().string() : "");
  std::int64_t number = 0;
  const auto save = [&](Training& run) {
    auto options = options_for(root, ranks(), 1);
    options.rank = rank();
    CheckpointWriter writer(options);
    writer.begin(run.engine.backend(), run.pieces, sample_state(++number));
    writer.wait();
    world().barrier();
    if (rank() == 0) writer.publish();
    writer.wait();
    world().barrier();
    EXPECT_EQ(writer.failure(), "");
    return step_path(root, number);
  };
  const auto load = [&](Training& run, const std::filesystem::path& from) {
    load_together(shared_save(from, ranks()), world(), run.engine.backend(), run.pieces);
    run.engine.set_updates(2);
    run.engine.weights_loaded(true);
  };
  for (const bool first : {true, false}) {
    const int size = group_sizes().back();
    Training run(job_of("bf16", first), size), other(job_of("bf16", !first), size), same(job_of("bf16", first), size);
    for (int step = 0; step < 2; ++step) run.step();
    const auto saved = save(run);
    load(other, saved);
    load(same, saved);
    const auto again = save(other);
    EXPECT_EQ(digest_all(digest_tensors(again)), digest_all(digest_tensors(saved)));
    EXPECT_EQ(other.tensors(), run.tensors());
    same.step();
    other.step();
    EXPECT_LE(farthest(other.tensors(), same.tensors()), ranks() <= 2 ? 1e-6 : 2e-2);
    world().barrier();
  }
}

}  // namespace
}  // namespace smlp::test
