#include "worker/engine.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <optional>

#include "core/error.h"
#include "layers/plan.h"
#include "optim/schedule.h"
#include "worker/routing_settings.h"
#include "worker/step_tally.h"

namespace smlp {

namespace {

constexpr std::int64_t some_more = std::int64_t{1} << 20;  // than was counted, to be sure

StepTally::Sizes tally_sizes(const JobConfig& job, const ModelConfig& config, std::int64_t ranks, std::int64_t blocks) {
  const std::int64_t micro_batches = micro_batches_of_step(job, ranks);
  if (!has_experts(config)) return {.micro_batches = micro_batches};
  return {.micro_batches = micro_batches,
          .groups = job.train.micro_batch / config.group_sequences,
          .blocks = blocks,
          .experts = config.experts};
}

}  // namespace

ModelConfig model_config(const JobConfig& job) {
  ModelConfig config;
  config.kind = job.model.kind;
  config.context = job.model.context;
  config.width = job.model.width;
  config.hidden = job.model.hidden;
  config.dense_blocks = job.model.dense_blocks;
  config.sparse_blocks = job.model.sparse_blocks;
  config.experts = job.model.experts;
  config.expert_layers = job.model.expert_layers;
  config.heads = job.model.heads;
  config.vocabulary = job.model.vocabulary;
  config.dropout = job.model.dropout;
  config.activation = job.model.activation == "gelu"   ? Activation::gelu
                      : job.model.activation == "relu" ? Activation::relu
                                                       : Activation::gelu_tanh;
  config.placement = job.model.placement;
  config.channels = job.routing.channels;
  config.allow_leak = job.routing.allow_leak;
  config.router = router_settings(job);
  config.group_sequences = job.routing.group_sequences;
  config.shuffle = job.routing.shuffle;
  return config;
}

DType value_type(const JobConfig& job) {
  return job.train.precision == "fp16" ? DType::f16 : dtype_named(job.train.precision);
}

std::int64_t micro_batches_of_step(const JobConfig& job, std::int64_t ranks) {
  const auto at_once = job.train.micro_batch * ranks;
  return (job.train.global_batch + at_once - 1) / at_once;
}

struct Engine::Buffers {
  Buffers(Backend& backend, const StepTally::Sizes& sizes) : tally(backend, sizes), backend_(backend) {
    loss_scale = TensorView(backend.allocate(8), {1}, DType::f64);
    token_scale = TensorView(backend.allocate(8), {1}, DType::f64);
    place = TensorView(backend.allocate(StreamPlace::size * 8), {StreamPlace::size}, DType::i64);
  }
  ~Buffers() {
    backend_.release(loss_scale.data);
    backend_.release(token_scale.data);
    backend_.release(place.data);
  }
  StepTally tally;
  TensorView loss_scale, token_scale;  // loss scale / predicted tokens of the global batch; / all of them
  TensorView place;  // StreamPlace of the micro-batch
  std::vector<RoutingReport> reports;
  std::vector<double> agreed;

 private:
  Backend& backend_;
};

Engine::Engine(const JobConfig& job, std::unique_ptr<Backend> backend, ProcessGrid grid, bool trainable)
    : job_(job), config_(model_config(job)), backend_(std::move(backend)), grid_(std::move(grid)) {
  arena_ = std::make_unique<Arena>(*backend_);
  store_ = std::make_unique<ParameterStore>();
  if (trainable) config_.router.hash_table = make_hash_table(job_, *grid_.world);
  model_ = make_model(config_, *store_, ExpertGroup{*grid_.experts});
  const bool sharded = trainable && job_.optimizer.shard_states;
  store_->seal(*backend_, value_type(job_), static_cast<std::uint64_t>(job_.seed), trainable,
               sharded ? grid_.world->size() : 1);
  buffers_ = std::make_unique<Buffers>(*backend_, tally_sizes(job_, config_, grid_.world->size(), model_->blocks()));
  auxiliary_ = has_auxiliary_loss(config_);
  // Routers read on the host what the device has decided, and draw with arguments that change each time.
  repeatable_ = job_.cluster.cuda_graphs == "auto" && !has_experts(config_);
  if (!trainable) return;
  const AdamWSettings settings{.beta1 = job_.optimizer.betas.at(0),
                               .beta2 = job_.optimizer.betas.at(1),
                               .eps = job_.optimizer.eps,
                               .weight_decay = job_.optimizer.weight_decay,
                               .clip_norm = job_.optimizer.clip_norm};
  if (value_type(job_) == DType::f16) loss_scale_ = LossScale(job_.train.loss_scale, job_.train.loss_scale_window);
  sync_ = std::make_unique<GradientSync>(*backend_, *store_, grid_, model_->blocks(), sharded);
  upload_ = std::make_unique<BatchUpload>(*backend_, micro_batches_of_step(job_, grid_.world->size()),
                                          job_.train.micro_batch * job_.model.context);
  optimizer_ = std::make_unique<AdamW>(*backend_, *store_, settings, sync_->shares());
  grid_.world->connect();
  if (has_experts(config_)) {
    grid_.experts->connect();
    grid_.replicas->connect();
  }
  // A device gives a block whole: one of the size that is needed, where growing would take half as much again.
  if (!backend_->in_host_memory()) {
    arena_->reserve(some_more + count_scratch(config_, grid_.experts->size(), job_.train.micro_batch, value_type(job_),
                                              backend_->rows_at_once()));
  }
}

Engine::~Engine() = default;

std::int64_t Engine::updates() const { return optimizer_->updates(); }
void Engine::set_updates(std::int64_t updates) { optimizer_->set_updates(updates); }

StepResult Engine::train_step(std::int64_t step, std::int64_t position, const ReadBatch& read,
                              std::span<double> flags, const std::function<void()>& between,
                              const MayUpdate& may_update) {
  const std::int64_t micro = job_.train.micro_batch, global = job_.train.global_batch;
  const std::int64_t ranks = grid_.world->size(), rounds = micro_batches_of_step(job_, ranks);
  StepResult result;
  auto& clock = backend_->phase_clock();
  clock.enter(Phase::other);
  result.loss_scale = loss_scale_.value();
  scale_losses(result.loss_scale);
  buffers_->tally.clear();
  store_->zero_grad(*backend_);
  clear_loads();
  clock.enter(Phase::data);
  for (std::int64_t round = 0; round < rounds; ++round) {
    const bool last = round + 1 == rounds;
    const std::int64_t first = first_sequence(round);
    const std::int64_t next = last ? global + grid_.world->rank() * micro : first + ranks * micro;
    micro_batch({step, position, first, next, first < global, round, last}, read);
    between();
  }
  update(result, flags, may_update);
  clock.enter(Phase::outside);
  result.phases = clock.take();
  return result;
}

std::int64_t Engine::first_sequence(std::int64_t micro_batch) const {
  return (micro_batch * grid_.world->size() + grid_.world->rank()) * job_.train.micro_batch;
}

double Engine::share_of_a_prediction() const {
  return 1.0 / static_cast<double>(job_.train.global_batch * model_->predicted(job_.model.context));
}

double Engine::share_of_a_token() const {
  return 1.0 / static_cast<double>(job_.train.global_batch * job_.model.context);
}

void Engine::scale_losses(double factor) {
  const double prediction = factor * share_of_a_prediction(), token = factor * share_of_a_token();
  backend_->upload(&prediction, buffers_->loss_scale);
  backend_->upload(&token, buffers_->token_scale);
}

void Engine::micro_batch(const MicroBatch& part, const ReadBatch& read) {
  auto& clock = backend_->phase_clock();
  const std::int64_t micro = job_.train.micro_batch, rows = micro * job_.model.context;
  if (!part.counts) scale_losses(0);
  arena_->reset();
  Context c{.backend = *backend_, .scratch = *arena_, .sequences = micro, .length = job_.model.context};
  c.tokens = arena_->take({rows}, DType::i32);
  c.targets = arena_->take({rows}, DType::i32);
  const std::int32_t *tokens = nullptr, *targets = nullptr;
  read(part.position + part.first, micro, part.position + part.next, tokens, targets);
  upload_->start(part.index, tokens, targets, c.tokens, c.targets);
  c.place = buffers_->place;
  c.stand_at(part.step, part.first);
  c.seed = static_cast<std::uint64_t>(job_.seed);
  c.loss_scale = buffers_->loss_scale;
  if (auxiliary_) {
    c.auxiliary = buffers_->tally.auxiliary(part.index);
    c.auxiliary_scale = buffers_->token_scale;
  }
  c.reports = &buffers_->reports;
  c.counts = buffers_->tally.counts(part.index);
  c.block = &at_block_;
  const auto row_loss = arena_->take({rows}, DType::f64);

  // Sums among ranks begin while the backward pass goes on; alone there is nothing to wait for, and nothing to share.
  const bool repeated = repeatable_ && (!part.last || grid_.world->size() == 1), sums_beside = part.last && !repeated;
  std::optional<Arena::Frame> frame;  // of both passes, however often they are begun
  const auto forward = [&] {
    frame.reset();
    frame.emplace(*arena_);
    model_->forward_loss(c, row_loss);
    if (part.counts) backend_->sum(row_loss, buffers_->tally.loss());
  };
  const std::function<void(int)> block_done = [this, sums_beside](int block) {
    if (sums_beside) sync_->block_done(block);
  };
  const auto backward = [&] { model_->backward(c, block_done); };
  const std::array<WorkPart, 2> passes = {WorkPart{[&] { clock.enter(Phase::forward); }, std::ref(forward)},
                                          WorkPart{[&] { clock.enter(Phase::backward); }, std::ref(backward)}};
  if (repeated) {
    repeat(c, row_loss, passes);
    for (int k = model_->blocks(); part.last && k >= -1; --k) sync_->block_done(k);
  } else {
    for (const auto& pass : passes) pass();
  }
  if (part.last) sync_->finish();
  clock.enter(part.last ? Phase::optimizer : Phase::data);
  add_reports(part.counts);
  buffers_->reports.clear();
}

void Engine::update(StepResult& result, std::span<double> flags, const MayUpdate& may_update) {
  auto& clock = backend_->phase_clock();
  const Schedule schedule{job_.schedule.kind,         job_.optimizer.learning_rate, job_.schedule.warmup_steps,
                          job_.schedule.initial_rate, job_.schedule.minimum_rate,   job_.schedule.decay_steps};
  result.learning_rate = schedule.rate(optimizer_->updates());
  optimizer_->prepare(result.learning_rate, 1 / result.loss_scale);
  sync_->squared_norm(optimizer_->control());
  const double squared_norm = optimizer_->squared_norm();
  const bool finite = std::isfinite(squared_norm);
  result.gradient_norm = std::sqrt(squared_norm) / result.loss_scale;
  add_tally(result);
  result.own_finite = {.loss = std::isfinite(result.loss), .gradient = sync_->own_finite()};
  clock.enter(Phase::other);
  agree(result, flags);  // before the update: all ranks may still leave it out alike
  result.overflowed = !finite && std::isfinite(result.loss) && loss_scale_.can_fall();
  loss_scale_.step_over(finite);
  clock.enter(Phase::optimizer);
  backend_->put_behind_downloads();  // a checkpoint may still be copied: nothing before this writes to what it holds
  const bool may = !may_update || may_update(result);
  if (may) {
    optimizer_->apply();
    sync_->gather_values();
  }
  result.updated = may && optimizer_->finish(squared_norm);
  for (const auto& load : result.blocks) {
    if (load.bias != nullptr && result.updated) move_bias(*backend_, *load.bias, load.expert_tokens);
  }
}

// `row_loss` is the last that the arena gave, so that what the layers take lies behind it.
void Engine::repeat(const Context& c, const TensorView& row_loss, std::span<const WorkPart> passes) {
  const auto place = [](const TensorView& view) { return static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(view.data)); };
  const std::array baked_in = {c.sequences, c.length, place(c.tokens), place(c.targets), place(row_loss)};
  const bool known = !recording_.refusal.empty();
  backend_->repeat(recording_, baked_in, passes);
  if (known || recording_.refusal.empty()) return;
  spdlog::warn("micro-batches are handed to the GPU call by call, not as one CUDA graph: {}", recording_.refusal);
}

// The step's one small all-reduce: flags, loss, and what each block sent to each expert.
void Engine::agree(StepResult& result, std::span<double> flags) {
  auto& sums = buffers_->agreed;
  sums.assign(flags.begin(), flags.end());
  sums.push_back(result.loss);
  auto& losses = result.router_losses;
  sums.insert(sums.end(), {losses.added, losses.balance, losses.z});
  for (const auto& load : loads_) {
    sums.insert(sums.end(), load.expert_tokens.begin(), load.expert_tokens.end());
    sums.push_back(load.dropped);
  }
  grid_.world->all_reduce_host(sums, Reduce::sum);
  auto next = sums.begin();
  for (double& flag : flags) flag = *next++;
  result.loss = *next++ * share_of_a_prediction();
  for (double* loss : {&losses.added, &losses.balance, &losses.z}) *loss = *next++;
  for (auto& load : loads_) {
    for (double& tokens : load.expert_tokens) tokens = *next++;
    load.dropped = *next++;
  }
  result.blocks = loads_;
}

void Engine::clear_loads() {
  for (auto& load : loads_) {
    std::fill(load.expert_tokens.begin(), load.expert_tokens.end(), 0.0);
    load.dropped = load.rounds = 0;
  }
}

// Every rank has the same list of blocks, also one whose reports do not count.
void Engine::add_reports(bool count) {
  for (const auto& report : buffers_->reports) {
    const auto same = [&](const BlockLoad& load) { return load.block == report.block; };
    auto load = std::find_if(loads_.begin(), loads_.end(), same);
    if (load == loads_.end()) {
      loads_.push_back({report.block, std::vector<double>(static_cast<std::size_t>(config_.experts)), 0, 0, report.bias});
      load = loads_.end() - 1;
    }
    if (!count) continue;
    for (std::size_t e = 0; e < report.expert_tokens.size(); ++e) {
      load->expert_tokens[e] += static_cast<double>(report.expert_tokens[e]);
    }
  }
}

// What the device knows of this rank's part of the step. Waits.
void Engine::add_tally(StepResult& result) {
  StepTally& tally = buffers_->tally;
  tally.read();
  result.loss = tally.found<double>(tally.loss())[0];
  auto& losses = result.router_losses;
  const std::int64_t rows = config_.group_sequences * job_.model.context;
  const double share = share_of_a_token();
  for (std::int64_t m = 0; first_sequence(m) < job_.train.global_batch; ++m) {
    if (auxiliary_) {
      const auto per_group = tally.found<double>(tally.auxiliary(m));
      losses.added += config_.router.softmax.auxiliary.total(per_group, rows) * share;
      losses.balance += AuxiliaryLoss::unweighted(per_group, rows, 0) * share;
      losses.z += AuxiliaryLoss::unweighted(per_group, rows, 1) * share;
    }
    const RoutingCounts counts = tally.counts(m);
    for (auto& load : loads_) {
      const auto taken = tally.found<double>(counts.taken.slice(load.block));
      for (std::size_t e = 0; e < taken.size(); ++e) load.expert_tokens[e] += taken[e];
      load.dropped += tally.found<double>(counts.dropped.slice(load.block))[0];
      for (const double r : tally.found<std::int32_t>(counts.rounds.slice(load.block))) {
        if (std::abs(r) > std::abs(load.rounds)) load.rounds = r;
      }
    }
  }
}

Evaluation Engine::evaluate(const TokenFile& file, std::int64_t windows, const std::function<void()>& between,
                            bool compare_routing) {
  const EvaluationPlan plan{job_.model.context, job_.train.micro_batch, windows, compare_routing};
  return smlp::evaluate(*model_, *backend_, *arena_, *grid_.world, file, plan, between);
}

std::vector<Piece> Engine::pieces(bool with_optimizer) const {
  const int ranks = grid_.world->size(), me = grid_.world->rank();
  const int copies = grid_.replicas->size(), copy = grid_.replicas->rank();
  // Bytes that each holder writes so far: replicated tensors go to the rank with least to do.
  std::vector<std::int64_t> world_bytes(static_cast<std::size_t>(ranks)), copy_bytes(static_cast<std::size_t>(copies));
  std::vector<Piece> pieces;
  const bool shared_out = job_.optimizer.shard_states && ranks > 1;
  const auto add = [&](const Parameter& parameter, const std::string& prefix, TensorView local) {
    auto& bytes = parameter.placement == Placement::replicated ? world_bytes : copy_bytes;
    const int holder = parameter.placement == Placement::replicated ? me : copy;
    const auto writer = std::min_element(bytes.begin(), bytes.end());
    *writer += local.bytes();
    pieces.push_back({.name = prefix + parameter.name,
                      .local = local,
                      .global_shape = parameter.global_shape(),
                      .offset = parameter.shard * local.size(),
                      .mine = writer - bytes.begin() == holder});
  };
  for (const auto& parameter : store_->parameters()) {
    add(parameter, "", parameter.value);
    if (!with_optimizer) continue;
    const auto state = optimizer_->state_of(parameter);
    const auto add_state = [&](const char* prefix, TensorView local) {
      if (!shared_out) return add(parameter, prefix, local);
      pieces.push_back({.name = prefix + parameter.name,
                        .local = local,
                        .global_shape = parameter.global_shape(),
                        .offset = parameter.shard * parameter.shape.size() + state.first,
                        .alone = true});
    };
    add_state("adam.m/", state.m);
    add_state("adam.v/", state.v);
    if (state.master) add_state("adam.master/", state.master);
  }
  for (const auto& table : store_->tables()) {
    const auto writer = std::min_element(world_bytes.begin(), world_bytes.end());
    *writer += table.view.bytes();
    pieces.push_back({.name = table.name,
                      .local = table.view,
                      .global_shape = table.view.shape,
                      .mine = writer - world_bytes.begin() == me});
  }
  return pieces;
}

void Engine::weights_loaded(bool with_masters) {
  if (optimizer_ && !with_masters) optimizer_->reset_masters();
}

}  // namespace smlp
