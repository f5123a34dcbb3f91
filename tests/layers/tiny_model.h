// A small language model with a batch, on any backend and any group of ranks.
#pragma once

#include <memory>
#include <vector>

#include "layers/model.h"
#include "tests/layers/bench.h"

namespace smlp::test {

ModelConfig tiny_config(std::vector<std::string> stack);

struct Batch {
  std::vector<std::int32_t> tokens, targets;
};
Batch random_batch(const ModelConfig& config, std::int64_t sequences, std::uint64_t seed);

class TinyModel {
 public:
  TinyModel(const ModelConfig& config, Backend& backend, Communicator& ranks, DType type,
            std::uint64_t seed = 1, double scale = 0.4);

  // Sequences [first, first + count) of the batch.
  void load(const Batch& batch, std::int64_t first, std::int64_t count, std::int64_t length = 0);
  double forward_loss();  // sum over my rows of row loss, and of auxiliary losses in training, times loss scale
  void backward() { model->backward(c, {}); }
  std::vector<double> logits();  // of all rows

  ModelConfig config;
  Backend& backend;
  Memory memory{backend};
  ParameterStore store;
  Arena scratch{backend};
  std::unique_ptr<Model> model;
  Context c{backend, scratch};
  double loss_scale = 1;
};

}  // namespace smlp::test
