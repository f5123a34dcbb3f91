// The SLURM allocation that this process runs in, as its environment tells it: nobody is asked, so it says what was
// given at the start. Nodes that died since are still listed; Controller::states_of_nodes knows them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace smlp {

struct Allocation {
  struct Node {
    std::string name;
    std::int64_t cpus = 1;  // to run there, as SLURM counts them (cores or hardware threads)
  };
  struct ArrayPlace {
    std::string job_id;    // of the whole array
    std::int64_t task = 0;
  };

  std::string job_id;      // of this job or array task, but of one task also the whole array's
  std::vector<Node> nodes;
  std::int64_t restarts = 0;  // how often SLURM has requeued it
  std::optional<ArrayPlace> array;
  std::int64_t gpus_per_node = 0;  // that it has on each, where it asked for some for each task or for all; else 0
  std::int64_t cpus_per_task = 0;  // that it asked for; else 0
  bool in_batch_script = false;  // false: under salloc, or inside a step

  std::vector<std::string> node_names() const;
  std::string controller_id() const;  // what SLURM's programs take for this job or array task alone: "17", "15_3"
  std::int64_t cpus_of(const std::string& node) const;  // 0: no node of it
};

// nullopt outside of an allocation. Throws Error(unavailable) with the variable and its value where SLURM's words
// can't be read.
std::optional<Allocation> allocation_of_environment();

// Of whose allocation we are, by its own id or as the task of an array.
bool is_job_around_us(const std::string& id);

}  // namespace smlp
