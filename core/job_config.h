// The job file, resolved: every key of docs/running.md with its value. Read by load_job() (core/job_file.h),
// which checks it; plain data after that. Sections and members are named as in the file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace smlp {

struct JobConfig {
  std::string name;
  std::int64_t seed = 1;

  struct Model {
    std::string kind = "smlp";
    std::int64_t context = 128, width = 128, hidden = 512;
    std::int64_t dense_blocks = 4, sparse_blocks = 2, experts = 4, heads = 1, expert_layers = 1;
    std::int64_t vocabulary = 0;  // 0: the tokenizer's, padded to a multiple of 64; never 0 once resolved
    double dropout = 0.0;
    std::string activation = "gelu_tanh";
    std::string placement = "paper";
  } model;

  struct Routing {
    std::string tokens = "balanced";
    std::string channels = "deterministic";
    bool allow_leak = false;
    std::int64_t group_sequences = 0;  // 0: the micro-batch; never 0 once resolved
    bool shuffle = false;
    // switch and gshard, from here on
    double capacity_factor = 1.0, evaluation_capacity_factor = 0.0, evaluation_capacity_fraction = 0.0;
    std::string capacity_rule = "fairseq";
    std::int64_t minimum_capacity = 0;
    std::string gate = "softmax", first_expert = "best", second_expert = "sampling", evaluation_second_expert = "all";
    double second_threshold = 0.5;
    std::string normalise = "after", place_order = "position";
    double jitter = 0.0, expert_bias_rate = 0.0;
    double balance_weight = 0.01, z_weight = 0.0;
    std::string balance_counts = "first", balance_combine = "sum", balance_transform = "none";
    // hash
    std::string hash_table = "random";
    std::int64_t hash_seed = 42;
  } routing;

  struct Data {
    std::string tokenizer;
    std::vector<std::string> train, valid;
    std::vector<double> weights;
  } data;

  struct Optimizer {
    double learning_rate = 1e-3;
    std::vector<double> betas = {0.9, 0.98};
    double eps = 1e-8, weight_decay = 0.1, clip_norm = 1.0;
    bool shard_states = false;
  } optimizer;

  struct Schedule {
    std::string kind = "inverse_sqrt";
    std::int64_t warmup_steps = 100;
    double initial_rate = 1e-7, minimum_rate = 0.0;
    std::int64_t decay_steps = 0;  // cosine; 0: train.steps; never 0 once resolved to a cosine
  } schedule;

  struct Train {
    std::int64_t steps = 400, global_batch = 16, micro_batch = 4;
    std::string precision = "f32";
    bool tf32 = false;
    double loss_scale = 65536;  // of fp16, as the window
    std::int64_t loss_scale_window = 2000;
    std::int64_t eval_every = 100;
    std::int64_t eval_sequences = 0;  // sequences of the held-out data an evaluation reads; 0: all
  } train;

  struct Checkpoint {
    std::int64_t every_steps = 50;
    double every_seconds = 0;  // 0: off
    bool automatic = false;    // key `auto`
    double auto_least_seconds = 15, auto_most_seconds = 3600;
    std::int64_t keep_last = 3, keep_every = 0;
    bool keep_best = false;
    std::string local_dir;
    std::int64_t local_every_steps = 0;
  } checkpoint;

  struct Metrics {
    std::string listen = "127.0.0.1:0";
  } metrics;

  struct Cluster {
    std::int64_t ranks = 2;
    std::int64_t expert_ranks = 0;  // 0: gcd(experts, ranks)
    std::string device = "auto", communicator = "auto", cuda_graphs = "auto", product_ends = "own_bias_gradient";
    bool deterministic = true;  // steps on GPUs
    std::int64_t threads = 1;
    std::int64_t spare_nodes = 0, min_nodes = 1;
    std::string launcher = "auto";
    std::string slow_nodes = "warn";
    double slow_node_share = 0.5, clock_skew_seconds = 5, preflight_seconds = 30;
    bool exchange_check = false;
    bool bind_cores = true;
    double hang_floor_seconds = 15, hang_ceiling_seconds = 3600, hang_factor = 10;
    std::int64_t replica_check_every = 100;
  } cluster;

  struct Divergence {
    double spike_zscore = 6;
    std::int64_t spike_window = 64;
    std::string spike_policy = "skip";
    std::int64_t spike_budget = 10, pass_over_steps = 4;
  } divergence;

  struct Slurm {
    std::int64_t nodes = 0, tasks_per_node = 1;
    std::string time_limit, partition, account, qos, memory, constraint;
    std::int64_t cpus_per_task = 0, gpus_per_task = 0;
    bool exclusive = false;
    std::string array, dependency;
    std::int64_t signal_seconds = 120, max_requeues = 10;
    std::vector<std::string> setup, extra;
  } slurm;
};

}  // namespace smlp
