// Nodes judged by what they answered before an attempt: which are fit, which are slow, and why, in sentences. Pure
// logic: launcher/node_probe.h asks the nodes, `smlp-worker preflight` (worker/preflight.h) answers with one line.
//
// Unfit: no answer or no whole one, another version of smlp, a run directory that is not there, not writable, too full,
// or slow beyond use. Slow, by cluster.slow_node_share of the median: unfit by cluster.slow_nodes = "exclude" alone.
// The rest (crowded cores, clocks, the local folder, another instruction set) is said and held against no node.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/cores.h"
#include "core/job_config.h"

namespace smlp {

struct ProbeAnswer {
  std::string node;
  std::string line;     // what smlp-worker preflight printed
  std::string failure;  // why there is none
  double received = 0;  // system clock of the launcher, seconds
  bool silent = false;  // there was no answer in time
};

struct FolderReport {
  std::string path;
  std::int64_t free_bytes = 0;
  double sync_seconds = 0;  // write and fsync of a small file
  bool writable = false;
  std::string failure;  // why it can't be used; empty: it can
};

struct NodeReport {
  std::string isa, version;
  std::int64_t cores = 0, threads = 0;  // that the probe might use
  std::vector<Core> core_list;          // the same, one by one; empty where the probe does not say
  std::int64_t devices = 0;
  double product_flops = 0;       // over the whole of a short measurement: what else computes there counts
  double best_product_flops = 0;  // of its best product
  FolderReport run_dir;
  std::optional<FolderReport> local_dir;
  double clock_seconds = 0;
};

struct ParsedReport {
  std::optional<NodeReport> report;
  std::string failure;  // why there is none
};
ParsedReport parse_node_report(const std::string& line);

struct NodeDemands {
  std::int64_t ranks_per_node = 1;
  std::int64_t free_bytes = 0;  // that the run directory must have left
};

struct NodeVerdict {
  std::string node;
  bool fit = true, slow = false;
  std::int64_t threads = 0;  // of a node that answered, as reported
  std::vector<Core> cores;
  std::vector<std::string> sentences;  // each names the node; of a fit one they are warnings
};
// In the order of `answers`.
std::vector<NodeVerdict> judge(const std::vector<ProbeAnswer>& answers, const JobConfig& job, const NodeDemands& demands);

// The line that `smlp-worker preflight --exchange` prints on rank 0, all ranks of a layout taking part. Judges links
// between nodes apart from those within one: a node whose best link stays under the share is named. Two nodes have
// one link, and nothing to compare it with.
struct ExchangeVerdict {
  std::vector<std::string> slow_nodes;  // as the ranks call them: core/host_name.h, node_name()
  std::vector<std::string> sentences;
  std::string failure;  // why nothing could be judged; empty: it could
};
ExchangeVerdict judge_exchange(const std::string& line, const JobConfig& job);

}  // namespace smlp
