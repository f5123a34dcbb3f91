// What a model of these sizes asks of a machine, counted by running one step of the real layers on a backend
// that computes nothing. Allocates no tensor.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "layers/model.h"

namespace smlp {

struct PlanCounts {
  struct Parameters {
    std::int64_t total = 0;       // non_expert + experts · expert
    std::int64_t non_expert = 0;  // everything replicated
    std::int64_t expert = 0;      // one expert of every sparse block
    std::int64_t experts = 0;     // 0 for a dense model
  } parameters;
  struct ForwardMacs {  // multiply-adds over 2 · context tokens
    std::int64_t paper = 0, executed = 0;
  } forward_macs;
  struct MemoryBytes {  // of one rank
    std::int64_t parameters = 0, gradients = 0, optimizer = 0, activations = 0, exchange = 0, total = 0;
    std::int64_t optimizer_saved = 0;  // what the optimiser would take more if its states were not shared out
  } memory;
  std::int64_t exchange_bytes_per_step =
      0;  // a rank sends to others: tokens and channels, forward and backward
  std::int64_t reduce_bytes_per_step = 0;  // gradients of a rank that are summed with others
  std::int64_t checkpoint_bytes = 0;       // weights, optimiser state and tables, of the whole model
  std::int64_t checkpoint_copy_bytes = 0;  // of them, a rank's share: what it keeps in its host's memory from the first save on
};

// `expert_ranks` consecutive ranks share the experts; `micro_batch` sequences a rank at once, `rounds` times
// a step; `shard_states`: the optimiser's states are shared out among the ranks that would hold them alike;
// `rows_at_once`: of their backend.
PlanCounts count_model(const ModelConfig& config, std::int64_t ranks, std::int64_t expert_ranks,
                       std::int64_t micro_batch, DType precision, std::int64_t rounds, bool shard_states = false,
                       std::int64_t rows_at_once = Backend::rows_at_once_on_hosts);

struct PlannedTensor {
  std::string name;
  Shape shape;
  DType dtype;
};
// Weights and tables of the whole model, as a checkpoint holds them.
std::vector<PlannedTensor> plan_tensors(const ModelConfig& config, DType precision);

// Bytes that one micro-batch of training takes from an Arena, on a backend whose rows_at_once() that is; of routers
// without capacity, where every expert gets as many rows.
std::int64_t count_scratch(const ModelConfig& config, std::int64_t expert_ranks, std::int64_t micro_batch,
                           DType precision, std::int64_t rows_at_once);

}  // namespace smlp
