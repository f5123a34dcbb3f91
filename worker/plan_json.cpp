#include "worker/plan_json.h"

#include <fmt/format.h>

#include "worker/engine.h"

namespace smlp {

PlanCounts count_job(const JobConfig& job) {
  const auto rounds = micro_batches_of_step(job, job.cluster.ranks);
  const auto rows_at_once = job.cluster.device == "cuda" ? Backend::rows_at_once_on_gpus : Backend::rows_at_once_on_hosts;
  auto counts = count_model(model_config(job), job.cluster.ranks, job.cluster.expert_ranks, job.train.micro_batch, value_type(job),
                            rounds, job.optimizer.shard_states, rows_at_once);
  if (!job.checkpoint.local_dir.empty()) counts.checkpoint_copy_bytes *= 2;  // one of each tier
  return counts;
}

PlanCounts count_alone(const JobConfig& job) {
  return count_model(model_config(job), 1, 1, job.train.micro_batch, value_type(job), 1);
}

nlohmann::json tensors_json(const JobConfig& job) {
  auto list = nlohmann::json::object();
  for (const auto& [name, shape, dtype] : plan_tensors(model_config(job), value_type(job))) {
    list[name] = fmt::format("{} {}", name_of(dtype), shape.text());
  }
  return list;
}

nlohmann::json to_json(const PlanCounts& counts) {
  const auto& [total, non_expert, expert, experts] = counts.parameters;
  const auto& memory = counts.memory;
  return {{"parameters", {{"total", total}, {"non_expert", non_expert}, {"expert", expert}, {"experts", experts}}},
          {"forward_macs", {{"paper", counts.forward_macs.paper}, {"executed", counts.forward_macs.executed}}},
          {"memory_bytes_per_rank",
           {{"parameters", memory.parameters},
            {"gradients", memory.gradients},
            {"optimizer", memory.optimizer},
            {"optimizer_saved", memory.optimizer_saved},
            {"activations", memory.activations},
            {"exchange", memory.exchange},
            {"total", memory.total}}},
          {"exchange_bytes_per_step", counts.exchange_bytes_per_step},
          {"reduce_bytes_per_step", counts.reduce_bytes_per_step},
          {"checkpoint_bytes", counts.checkpoint_bytes},
          {"checkpoint_copy_bytes_per_rank", counts.checkpoint_copy_bytes}};
}

}  // namespace smlp
