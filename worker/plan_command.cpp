#include <fmt/format.h>

#include "core/json_text.h"
#include "core/quantities.h"
#include "worker/commands.h"
#include "worker/plan_json.h"

namespace smlp {

namespace {

std::string millions(std::int64_t count) { return fmt::format("{:.3f} M", static_cast<double>(count) / 1e6); }

std::string binary_size(std::int64_t bytes) { return size_text(bytes, 2); }

void print(const JobConfig& job, const PlanCounts& counts) {
  const auto line = [](const char* what, const std::string& value) { fmt::print("{:<34} {}\n", what, value); };
  const auto trillion = [](std::int64_t macs) { return fmt::format("{:.4f} T", static_cast<double>(macs) / 1e12); };
  fmt::print("{}: {} on {} ranks, {}\n", job.name, job.model.kind, job.cluster.ranks, job.train.precision);
  line("parameters", millions(counts.parameters.total));
  line("  replicated", millions(counts.parameters.non_expert));
  if (counts.parameters.experts > 0) {
    line("  one expert of every sparse block", millions(counts.parameters.expert));
    line("  experts", fmt::format("{}", counts.parameters.experts));
  }
  line("forward multiply-adds, 2 sequences", trillion(counts.forward_macs.paper) + " (as papers count)");
  line("  executed", trillion(counts.forward_macs.executed));
  line("memory of a rank", binary_size(counts.memory.total));
  line("  parameters", binary_size(counts.memory.parameters));
  line("  gradients", binary_size(counts.memory.gradients));
  const auto saved = counts.memory.optimizer_saved;
  const auto shared_out = fmt::format(" ({} saved: shared out among the ranks)", binary_size(saved));
  line("  optimiser", binary_size(counts.memory.optimizer) + (saved > 0 ? shared_out : ""));
  line("  activations", binary_size(counts.memory.activations));
  line("  exchange", binary_size(counts.memory.exchange));
  line("sent by a rank to experts, a step", binary_size(counts.exchange_bytes_per_step));
  line("gradients of a rank summed, a step", binary_size(counts.reduce_bytes_per_step));
  line("checkpoint", binary_size(counts.checkpoint_bytes));
  line("  a rank's copy, of host memory", binary_size(counts.checkpoint_copy_bytes));
}

}  // namespace

void plan_command(const JobConfig& job, bool json) {
  const auto counts = count_job(job);
  if (json) {
    fmt::print("{}\n", json_text(to_json(counts), 2));
  } else {
    print(job, counts);
  }
}

void plan_tensors_command(const JobConfig& job) { fmt::print("{}\n", json_text(tensors_json(job))); }

}  // namespace smlp
