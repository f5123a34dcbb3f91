#include "tests/layers/tiny_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/random.h"

namespace smlp::test {

ModelConfig tiny_config(std::vector<std::string> stack) {
  ModelConfig config;
  config.stack = std::move(stack);
  config.context = 6;
  config.width = 8;
  config.hidden = 12;
  config.experts = 4;
  config.heads = 2;
  config.vocabulary = 11;
  for (const auto& kind : config.stack) {
    if (kind == "switch" || kind == "gshard" || kind == "hash") config.router.tokens = kind;
  }
  config.router.softmax.auxiliary = {.balance_weight = 0.2, .z_weight = 0.01};
  config.router.softmax.second = SecondChoice::all;
  for (std::int32_t id = 0; id < 11; ++id) config.router.hash_table.push_back(id * 3 % 4);
  return config;
}

std::string test_name(const std::vector<std::string>& stack, const std::string& channels) {
  std::string name;
  for (const auto& kind : stack) name += name.empty() ? kind : "_" + kind;
  if (channels != "deterministic") name += "_" + channels;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

Batch random_batch(const ModelConfig& config, std::int64_t sequences, std::uint64_t seed) {
  const RandomStream stream(seed, "test batch");
  Batch batch;
  for (std::int64_t s = 0; s < sequences; ++s) {
    for (std::int64_t t = 0; t < config.context; ++t) {
      const auto index = static_cast<std::uint64_t>(s * (config.context + 1) + t);
      const auto token = [&](std::uint64_t i) {
        return static_cast<std::int32_t>(stream.bits(i) % static_cast<std::uint64_t>(config.vocabulary));
      };
      batch.tokens.push_back(token(index));
      batch.targets.push_back(token(index + 1));
    }
  }
  return batch;
}

TinyModel::TinyModel(const ModelConfig& configuration, Backend& where, Communicator& ranks, DType type,
                     std::uint64_t seed, double scale)
    : config(configuration), backend(where), model(make_model(config, store, {ranks})) {
  store.seal(backend, type, seed);
  // First values leave much of a model at zero; these do not, and are the same however the model is spread.
  for (auto& parameter : store.parameters()) {
    const RandomStream stream(seed, "value of " + parameter.name);
    const bool scales = parameter.name.ends_with("norm.weight");
    std::vector<double> values(static_cast<std::size_t>(parameter.value.size()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto index = static_cast<std::uint64_t>(parameter.shard) * values.size() + i;
      values[i] = (scales ? 1 : 0) + scale * stream.normal(index);
    }
    write(backend, parameter.value, values);
  }
  store.zero_grad(backend);
  backend.fill(scratch.take({std::int64_t{1} << 17}, DType::f64), std::nan(""));
  c.seed = 5;
  c.step = 2;
  c.place = memory.take({StreamPlace::size}, DType::i64);
  c.loss_scale = memory.take({1}, DType::f64);
}

void TinyModel::load(const Batch& batch, std::int64_t first, std::int64_t count, std::int64_t length) {
  c.sequences = count;
  c.length = length > 0 ? length : config.context;
  c.stand_at(c.step, first);
  std::vector<std::int32_t> tokens, targets;
  for (std::int64_t s = first; s < first + count; ++s) {
    const auto at = static_cast<std::ptrdiff_t>(s * config.context);
    tokens.insert(tokens.end(), batch.tokens.begin() + at, batch.tokens.begin() + at + c.length);
    targets.insert(targets.end(), batch.targets.begin() + at, batch.targets.begin() + at + c.length);
  }
  c.tokens = memory.take({c.rows()}, DType::i32);
  c.targets = memory.take({c.rows()}, DType::i32);
  write_indices(backend, c.tokens, tokens);
  write_indices(backend, c.targets, targets);
  c.auxiliary = {};
  if (has_auxiliary_loss(config.router) && c.training()) {
    c.auxiliary = memory.take({count / config.group_sequences, 2}, DType::f64);
    c.auxiliary_scale = c.loss_scale;
  }
  scratch.reset();
}

double TinyModel::forward_loss() {
  scratch.reset();
  write(backend, c.loss_scale, {loss_scale});
  if (c.auxiliary) backend.fill(c.auxiliary, 0);
  const TensorView row_loss = memory.take({c.rows()}, DType::f64);
  model->forward_loss(c, row_loss);
  const auto losses = read(backend, row_loss);
  double sum = std::accumulate(losses.begin(), losses.end(), 0.0);
  if (c.auxiliary) {
    sum += config.router.softmax.auxiliary.total(read(backend, c.auxiliary), config.group_sequences * c.length);
  }
  return loss_scale * sum;
}

std::vector<double> TinyModel::logits() {
  scratch.reset();
  std::vector<std::int32_t> rows(static_cast<std::size_t>(c.rows()));
  std::iota(rows.begin(), rows.end(), 0);
  const TensorView index = memory.take({c.rows()}, DType::i32);
  write_indices(backend, index, rows);
  const DType type = store.segments().front().value.dtype;
  const TensorView out = memory.take({c.rows(), config.vocabulary}, type);
  model->forward_logits(c, index, out);
  return read(backend, out);
}

}  // namespace smlp::test
