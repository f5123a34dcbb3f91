#include "layers/plan.h"

#include <algorithm>
#include <cstdlib>

#include "core/error.h"
#include "tensor/counting.h"

namespace smlp {

namespace {

// Rank 0 of a group whose other ranks do what it does; nothing is sent.
class CountingCommunicator final : public Communicator {
 public:
  explicit CountingCommunicator(std::int64_t size) : size_(static_cast<int>(size)) {}

  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return size_; }

  void all_reduce(TensorView, Reduce) override {}
  void reduce_scatter(TensorView, TensorView) override {}
  void all_gather(TensorView, TensorView) override {}
  void broadcast(TensorView, int) override {}
  void all_to_all(TensorView in, std::span<const std::int64_t> rows_to, TensorView,
                  std::span<const std::int64_t>) override {
    const std::int64_t row_bytes = in.shape[0] == 0 ? 0 : in.bytes() / in.shape[0];
    std::int64_t rows = 0;
    for (const std::int64_t to_other : rows_to.subspan(1)) rows += to_other;
    const Call call(*this, "all_to_all", rows * row_bytes);
  }
  void all_reduce_host(std::span<double>, Reduce) override {}
  void all_to_all_host(std::span<const std::int64_t> in, std::span<std::int64_t> out) override {
    const std::size_t block = in.size() / static_cast<std::size_t>(size_);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = in[i % block];
  }
  std::vector<std::vector<std::byte>> gather_bytes(std::span<const std::byte> mine, int) override {
    return {static_cast<std::size_t>(size_), {mine.begin(), mine.end()}};
  }
  void broadcast_bytes(std::vector<std::byte>&, int) override {}
  void barrier() override {}
  std::unique_ptr<Transfer> start_send(std::span<const std::byte>, int) override { return nobody(); }
  std::unique_ptr<Transfer> start_receive(std::span<std::byte>, int) override { return nobody(); }
  std::unique_ptr<Communicator> split(int, int) override {
    return std::make_unique<CountingCommunicator>(size_);
  }
  [[noreturn]] void abort(int status) noexcept override { std::_Exit(status); }

 private:
  [[noreturn]] static std::unique_ptr<Transfer> nobody() {
    throw Error(ExitCode::fault, "a layer sends no messages of its own");
  }
  int size_;
};

struct Rehearsed {
  std::int64_t activation_bytes = 0, exchange_bytes = 0;
  MultiplyAdds multiply_adds;
};

// One micro-batch in a group of `members` ranks.
Rehearsed rehearse(const ModelConfig& config, std::int64_t members, std::int64_t sequences, DType precision,
                   Mode mode, std::int64_t rows_at_once = Backend::rows_at_once_on_hosts) {
  CountingBackend backend(rows_at_once);
  CountingCommunicator ranks(members);
  ParameterStore store;
  const auto model = make_model(config, store, {ranks});
  store.seal(backend, precision, 0, false);
  Arena scratch(backend);
  const Shape rows{sequences * config.context};
  Context c{backend, scratch};
  c.mode = mode;
  c.sequences = sequences;
  c.length = config.context;
  c.tokens = scratch.take(rows, DType::i32);
  c.targets = scratch.take(rows, DType::i32);
  c.loss_scale = scratch.take({1}, DType::f64);
  if (c.training() && has_auxiliary_loss(config)) {
    c.auxiliary = scratch.take({sequences / config.group_sequences, 2}, DType::f64);
    c.auxiliary_scale = scratch.take({1}, DType::f64);
  }
  model->forward_loss(c, scratch.take(rows, DType::f64));
  if (c.training()) model->backward(c, {});
  return {scratch.peak_bytes(), ranks.bytes_sent(), backend.multiply_adds()};
}

PlanCounts::ForwardMacs count_forward(ModelConfig config) {
  config.group_sequences = 1;  // evaluation knows no groups
  const auto run = rehearse(config, 1, 2, DType::f32, Mode::evaluation);
  return {run.multiply_adds.paper, run.multiply_adds.executed};
}

PlanCounts::Parameters count_parameters(const ModelConfig& config, const ParameterStore& store) {
  PlanCounts::Parameters counts;
  counts.total = store.count_global();
  counts.non_expert = store.count_global(Placement::replicated);
  if (has_experts(config)) {
    counts.experts = config.experts;
    counts.expert = store.count_global(Placement::expert) / config.experts;
  }
  return counts;
}

}  // namespace

std::int64_t count_scratch(const ModelConfig& config, std::int64_t expert_ranks, std::int64_t micro_batch,
                           DType precision, std::int64_t rows_at_once) {
  return rehearse(config, expert_ranks, micro_batch, precision, Mode::training, rows_at_once).activation_bytes;
}

std::vector<PlannedTensor> plan_tensors(const ModelConfig& config, DType precision) {
  CountingBackend backend;
  CountingCommunicator alone(1);
  ParameterStore store;
  const auto model = make_model(config, store, {alone});
  store.seal(backend, precision, 0, false);
  std::vector<PlannedTensor> tensors;
  for (const auto& parameter : store.parameters()) {
    tensors.push_back({parameter.name, parameter.global_shape(), parameter.value.dtype});
  }
  for (const auto& table : store.tables()) tensors.push_back({table.name, table.view.shape, table.view.dtype});
  return tensors;
}

PlanCounts count_model(const ModelConfig& config, std::int64_t ranks, std::int64_t expert_ranks,
                       std::int64_t micro_batch, DType precision, std::int64_t rounds, bool shard_states,
                       std::int64_t rows_at_once) {
  expect(ranks > 0 && expert_ranks > 0 && ranks % expert_ranks == 0,
         "plan: the ranks of an expert group must divide the number of ranks");
  PlanCounts plan;
  CountingBackend backend;
  CountingCommunicator group(expert_ranks);
  ParameterStore store;
  const auto model = make_model(config, store, {group});
  store.seal(backend, precision, 0, false, shard_states ? ranks : 1);

  plan.parameters = count_parameters(config, store);
  plan.forward_macs = count_forward(config);
  // As AdamW allocates: two moments of the gradient's type, and a master where the value is narrower.
  std::int64_t state_bytes_per_element = 0;
  for (const auto& segment : store.segments()) {
    const std::int64_t gradient = size_of(segment.grad.dtype);
    const bool master = segment.grad.dtype != segment.value.dtype;
    state_bytes_per_element = gradient * (master ? 3 : 2);
    plan.memory.parameters += segment.value.bytes();
    plan.memory.gradients += segment.grad.bytes();
    const std::int64_t sharers = segment.placement == Placement::expert ? ranks / expert_ranks : ranks;
    const std::int64_t states = segment.value.size() * state_bytes_per_element;
    const std::int64_t held = shard_states ? states / sharers : states;
    plan.memory.optimizer += held;
    plan.memory.optimizer_saved += states - held;
    if (sharers > 1) plan.reduce_bytes_per_step += segment.grad.bytes();
  }
  plan.checkpoint_bytes = plan.parameters.total * (size_of(precision) + state_bytes_per_element);
  for (const auto& table : store.tables()) plan.checkpoint_bytes += table.view.bytes();

  plan.checkpoint_copy_bytes = (plan.checkpoint_bytes + ranks - 1) / ranks;

  const Rehearsed spread = rehearse(config, expert_ranks, micro_batch, precision, Mode::training, rows_at_once);
  const Rehearsed alone = rehearse(config, 1, micro_batch, precision, Mode::training, rows_at_once);
  plan.memory.activations = std::min(alone.activation_bytes, spread.activation_bytes);
  plan.memory.exchange = spread.activation_bytes - plan.memory.activations;
  plan.memory.total = plan.memory.parameters + plan.memory.gradients + plan.memory.optimizer +
                      plan.memory.activations + plan.memory.exchange;
  plan.exchange_bytes_per_step = spread.exchange_bytes * rounds;
  return plan;
}

}  // namespace smlp
