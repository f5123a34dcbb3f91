#include "core/job_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>

namespace smlp {

namespace {

using J = JobConfig;

const char* type_name(const JobField& field) {
  static constexpr std::array names = {"integer", "number", "boolean", "string", "strings", "numbers"};
  return names[field.index()];
}

bool key_may_change(std::string_view key) {
  return key == "train.steps" || key == "train.micro_batch" || key == "optimizer.shard_states" ||
         key.starts_with("checkpoint.") ||
         key.starts_with("metrics.") || key.starts_with("cluster.") || key.starts_with("slurm.") ||
         key.starts_with("divergence.");
}

class Table {
 public:
  void add(const std::string& key, std::function<JobField(JobConfig&)> field, Allowed allowed, std::string meaning) {
    JobConfig defaults;
    const JobField value = field(defaults);
    keys.push_back({{key, type_name(value), toml_text(value), std::move(meaning), key_may_change(key)},
                    std::move(allowed),
                    std::move(field)});
  }
  std::vector<JobKey> keys;
};

// Adds keys of one section, whatever the type of the member.
template <class Section>
class InSection {
 public:
  InSection(Table& table, std::string name, Section J::*section)
      : table_(table), name_(std::move(name)), section_(section) {}
  template <class T>
  InSection& key(const char* member, T Section::*place, std::string meaning, Allowed allowed = {}) {
    const auto section = section_;
    table_.add(name_ + "." + member, [=](JobConfig& c) { return JobField(&(c.*section.*place)); },
               std::move(allowed), std::move(meaning));
    return *this;
  }

 private:
  Table& table_;
  std::string name_;
  Section J::*section_;
};

constexpr double largest_size = 1 << 30, largest_world = 1 << 20;
constexpr double least_f32 = std::numeric_limits<float>::min();  // what is below may count as 0

Allowed size(double least = 1, double most = largest_size) { return {.least = least, .most = most}; }
Allowed words(std::vector<std::string> known) { return {.words = std::move(known)}; }
Allowed fraction() { return {.least = 0, .most = 1, .below_most = true}; }
Allowed positive() { return {.least = 0, .above_least = true}; }

void add_model_keys(Table& table) {
  using M = J::Model;
  InSection(table, "model", &J::model)
      .key("kind", &M::kind,
           "the architecture; dense: gmlp, transformer; sparse: smlp, gshard and switch (every other block of a "
           "Transformer), base and hash (blocks added to one), gmlp-token-moe (whole gMLP blocks as experts)",
           words({"smlp", "gmlp", "transformer", "gshard", "switch", "base", "hash", "gmlp-token-moe"}))
      .key("context", &M::context, "T, tokens a sequence", size(2))
      .key("width", &M::width, "H, channels of a token", size())
      .key("hidden", &M::hidden, "F, channels inside a block; even where it is a gMLP block", size(2))
      .key("dense_blocks", &M::dense_blocks, "N1, blocks without experts", size(0, 1 << 16))
      .key("sparse_blocks", &M::sparse_blocks, "N2, blocks with experts; gshard and switch: N1 or N1 - 1", size(0, 1 << 16))
      .key("experts", &M::experts, "E, experts of a sparse block; smlp: must divide width", size(1, largest_world))
      .key("expert_layers", &M::expert_layers,
           "residual blocks that an expert of smlp, base or hash is a chain of (fairseq's base-sublayers)", size())
      .key("heads", &M::heads, "of attention, must divide width; of a gMLP block's gate, must divide hidden / 2", size())
      .key("vocabulary", &M::vocabulary, "tokens known; 0: the tokenizer's, padded to a multiple of 64", size(0))
      .key("dropout", &M::dropout, "share of activations dropped in training", fraction())
      .key("activation", &M::activation, "gelu_tanh, gelu (erf) or relu", words({"gelu_tanh", "gelu", "relu"}))
      .key("placement", &M::placement,
           "where sparse blocks stand among dense ones: the paper's rule or fairseq's; not for gshard and switch",
           words({"paper", "fairseq"}));

  using R = J::Routing;
  InSection(table, "routing", &J::routing)
      .key("tokens", &R::tokens, "how tokens find their expert; some kinds of models know one way alone",
           words({"balanced", "switch", "gshard", "hash"}))
      .key("channels", &R::channels,
           "smlp: how channels find their expert: deterministic, partial (by the first fifth of a sequence, which is not "
           "predicted) or leaky (by all of it; for study)",
           words({"deterministic", "partial", "leaky"}))
      .key("allow_leak", &R::allow_leak, "leaky is refused without it: it sees later tokens")
      .key("group_sequences", &R::group_sequences,
           "consecutive sequences of the global batch routed together; 0: the micro-batch (1 where nothing is routed)", size(0))
      .key("shuffle", &R::shuffle,
           "balanced: in training tokens are mixed among the ranks of an expert group before they are assigned (BASE); the "
           "one thing that makes losses depend on the number of ranks");
}

// Formulas: docs/routing.md.
void add_router_keys(Table& table) {
  using R = J::Routing;
  InSection(table, "routing", &J::routing)
      .key("capacity_factor", &R::capacity_factor,
           "places an expert has in training over its even share; switch and gshard; 0: as many as it takes")
      .key("evaluation_capacity_factor", &R::evaluation_capacity_factor,
           "the same at evaluation; 0: nothing is dropped")
      .key("evaluation_capacity_fraction", &R::evaluation_capacity_fraction,
           "places at evaluation as a share of the group's tokens (fairseq: 0.25); 0: by the factor", fraction())
      .key("capacity_rule", &R::capacity_rule, "whose rounding: fairseq, mesh (the factor is that of all choices) or megatron",
           words({"fairseq", "mesh", "megatron"}))
      .key("minimum_capacity", &R::minimum_capacity, "fewest places of an expert (mesh, DeepSpeed: 4)", size(0))
      .key("gate", &R::gate, "what an answer counts: the softmax of the logits, or the sigmoid of its own (Megatron)",
           words({"softmax", "sigmoid"}))
      .key("first_expert", &R::first_expert,
           "best, sampling: the best of logits plus Gumbel noise, or sinkhorn: in training the largest share once tokens and "
           "experts are scaled to take alike (Megatron)",
           words({"best", "sampling", "sinkhorn"}))
      .key("expert_bias_rate", &R::expert_bias_rate,
           "how much higher an expert that got fewer tokens than the mean ranks after each step, and lower one that got more "
           "(Megatron: 1e-3); 0: off")
      .key("second_expert", &R::second_expert,
           "gshard: sampling (next best of logits plus Gumbel noise), all (next best), random (next best, with "
           "probability gate / second_threshold), threshold (next best, if its gate is above) or none",
           words({"sampling", "all", "random", "threshold", "none"}))
      .key("evaluation_second_expert", &R::evaluation_second_expert, "the same at evaluation, where nothing is drawn",
           words({"all", "threshold", "none"}))
      .key("second_threshold", &R::second_threshold, "fairseq: 0.5, mesh: 0.2", positive())
      .key("normalise", &R::normalise, "gshard: gates are divided by their sum after or before tokens are dropped, or never",
           words({"after", "before", "never"}))
      .key("place_order", &R::place_order,
           "who gets an expert's places: position (the earlier), gate (the surer; batch-prioritised), random, or probs (every "
           "choice by its own gate; Megatron)",
           words({"position", "gate", "random", "probs"}))
      .key("jitter", &R::jitter, "in training the gate sees x · U(1 - jitter, 1 + jitter)", fraction())
      .key("balance_weight", &R::balance_weight, "of the balance loss in the loss; switch and gshard")
      .key("balance_counts", &R::balance_counts, "choices that the balance loss counts: first, or all (Megatron)",
           words({"first", "all"}))
      .key("balance_combine", &R::balance_combine, "balance losses of layers: sum or average",
           words({"sum", "average"}))
      .key("balance_transform", &R::balance_transform, "none, or neg_log: minus the logarithm of what layers add up to",
           words({"none", "neg_log"}))
      .key("z_weight", &R::z_weight, "of the mean squared log-sum of the gate's logits in the loss")
      .key("hash_table", &R::hash_table,
           "hash: random (Python's randrange after seed(hash_seed)), balanced (by how often data.train has a token), or a "
           "file: the expert of each id, in order")
      .key("hash_seed", &R::hash_seed, "of the random table", size(0, 9e15));
}

void add_data_and_optimizer_keys(Table& table) {
  using D = J::Data;
  InSection(table, "data", &J::data)
      .key("tokenizer", &D::tokenizer, "a folder with vocab.json and merges.txt, or \"bytes\"")
      .key("train", &D::train, "prefixes of token files to train on (`smlp data prepare` writes them)")
      .key("valid", &D::valid, "prefixes of token files to evaluate on")
      .key("weights", &D::weights, "one for each of data.train, mixes them; none: by size");

  using O = J::Optimizer;
  InSection(table, "optimizer", &J::optimizer)
      .key("learning_rate", &O::learning_rate, "highest learning rate")
      .key("betas", &O::betas, "AdamW's two averages, each in [0, 1)", fraction())
      .key("eps", &O::eps, "AdamW's divisor never falls below it", Allowed{.least = least_f32})
      .key("weight_decay", &O::weight_decay, "decoupled, on all but biases and norms")
      .key("clip_norm", &O::clip_norm, "largest norm of the whole gradient; 0: off")
      .key("shard_states", &O::shard_states, "averages and masters that several ranks would hold alike are shared out among them");

  using S = J::Schedule;
  InSection(table, "schedule", &J::schedule)
      .key("kind", &S::kind, "inverse_sqrt, cosine or constant", words({"inverse_sqrt", "cosine", "constant"}))
      .key("warmup_steps", &S::warmup_steps, "steps from initial_rate up to learning_rate")
      .key("initial_rate", &S::initial_rate, "learning rate of the first step")
      .key("minimum_rate", &S::minimum_rate, "cosine: the rate at its end")
      .key("decay_steps", &S::decay_steps, "cosine: the step of its end; 0: train.steps");

  using T = J::Train;
  InSection(table, "train", &J::train)
      .key("steps", &T::steps, "optimiser steps of the run", size(1, 1e15))
      .key("global_batch", &T::global_batch, "sequences a step, over all ranks", size())
      .key("micro_batch", &T::micro_batch, "sequences a rank takes at once", size())
      .key("precision", &T::precision, "f32, bf16 or fp16 (both with f32 master weights), or f64 (for checks)",
           words({"f32", "bf16", "fp16", "f64"}))
      .key("tf32", &T::tf32, "f32 on GPUs: faster products, of factors rounded to 11 significant bits")
      .key("loss_scale", &T::loss_scale, "fp16: the first factor of the loss; gradients are divided by it again", positive())
      .key("loss_scale_window", &T::loss_scale_window,
           "fp16: steps without overflow after which it doubles, as an overflow halves it; 0: it stays", size(0))
      .key("eval_every", &T::eval_every, "steps between evaluations on data.valid; 0: off")
      .key("eval_sequences", &T::eval_sequences, "sequences an evaluation reads of each file; 0: all");
}

void add_operation_keys(Table& table) {
  using C = J::Checkpoint;
  InSection(table, "checkpoint", &J::checkpoint)
      .key("every_steps", &C::every_steps,
           "steps between checkpoints, also where that means waiting for the one before; 0: by time alone")
      .key("every_seconds", &C::every_seconds, "seconds between checkpoints; 0: by steps alone")
      .key("auto", &C::automatic, "choose the seconds between saves of each tier from what they cost and how often the run dies; "
           "every_steps, every_seconds and local_every_steps then say nothing")
      .key("auto_least_seconds", &C::auto_least_seconds, "auto never saves more often", positive())
      .key("auto_most_seconds", &C::auto_most_seconds, "auto never saves less often", positive())
      .key("keep_last", &C::keep_last, "newest checkpoints kept", size(1))
      .key("keep_every", &C::keep_every, "every so many steps a checkpoint that stays for good; 0: none")
      .key("keep_best", &C::keep_best, "keep the checkpoint of the least validation loss")
      .key("local_dir", &C::local_dir, "an absolute path to each node's own disk or memory, for frequent saves; empty: none")
      .key("local_every_steps", &C::local_every_steps, "steps between those; one that is due while the one before is still "
           "being written or copied is put off until that is done");

  InSection(table, "metrics", &J::metrics)
      .key("listen", &J::Metrics::listen,
           "address and port of /metrics; port 0: any free one; other ports: a node's first rank has it, the next ranks those "
           "after it");

  using K = J::Cluster;
  InSection(table, "cluster", &J::cluster)
      .key("ranks", &K::ranks, "worker processes", size(1, largest_world))
      .key("expert_ranks", &K::expert_ranks, "ranks that share out the experts; 0: gcd(experts, ranks)",
           size(0, largest_world))
      .key("device", &K::device, "auto, cpu or cuda", words({"auto", "cpu", "cuda"}))
      .key("communicator", &K::communicator,
           "between GPUs; auto: NCCL where each rank has its own, else copies staged on the hosts",
           words({"auto", "nccl", "staged"}))
      .key("cuda_graphs", &K::cuda_graphs,
           "on GPUs; auto: the calls of a micro-batch are recorded and handed over at once where they are the same each time; off: "
           "one by one",
           words({"auto", "off"}))
      .key("product_ends", &K::product_ends,
           "on GPUs, what products end with: library: all that cuBLASLt can, in the product's pass; own_bias_gradient: own "
           "kernels sum gradients of biases; own_gelu: and compute GELU and its gradient; own: and add bias and residual",
           words({"library", "own_bias_gradient", "own_gelu", "own"}))
      .key("deterministic", &K::deterministic,
           "on GPUs; true: a step has the same bits each time; false: attention's backward pass is faster and may add in any order")
      .key("threads", &K::threads, "threads a rank, on CPU", size(1, 4096))
      .key("bind_cores", &K::bind_cores, "give each rank cores of its own where its node has enough for all")
      .key("launcher", &K::launcher, "what starts the ranks; auto: srun or mpirun in a batch job, else local",
           words({"auto", "local", "srun", "mpirun"}))
      .key("spare_nodes", &K::spare_nodes, "nodes kept in reserve", size(0, largest_world))
      .key("min_nodes", &K::min_nodes, "fewest nodes to go on with when others are lost", size(1, largest_world))
      .key("preflight_seconds", &K::preflight_seconds, "a node that has not answered by then is left out", positive())
      .key("slow_nodes", &K::slow_nodes, "warn of them, or exclude them", words({"warn", "exclude"}))
      .key("slow_node_share", &K::slow_node_share, "of the median product rate: below it a node is slow; 0: never",
           fraction())
      .key("exchange_check", &K::exchange_check, "before an attempt, measure how fast nodes exchange and name slow ones")
      .key("clock_skew_seconds", &K::clock_skew_seconds, "warn of clocks that are further apart", positive())
      .key("hang_floor_seconds", &K::hang_floor_seconds, "a rank is never called hung sooner than this", positive())
      .key("hang_factor", &K::hang_factor, "a rank is called hung after so many times what the place usually takes",
           {.least = 1})
      .key("hang_ceiling_seconds", &K::hang_ceiling_seconds, "a rank without progress is called hung at the latest then",
           positive())
      .key("replica_check_every", &K::replica_check_every,
           "steps between comparisons of what several ranks hold alike, by digest, and before each save; 0: never");

  using V = J::Divergence;
  InSection(table, "divergence", &J::divergence)
      .key("spike_zscore", &V::spike_zscore, "a loss so many deviations above the last ones' median is a spike; 0: off")
      .key("spike_window", &V::spike_window, "losses it is compared with; judged once half of them are there",
           size(8, 1 << 16))
      .key("spike_policy", &V::spike_policy,
           "skip: no update from that step; rewind: back to a checkpoint before it, and past the data; stop",
           words({"skip", "rewind", "stop"}))
      .key("spike_budget", &V::spike_budget, "spikes skipped or rewound within 1000 steps; one more stops the run")
      .key("pass_over_steps", &V::pass_over_steps, "rewind: steps whose data is passed over, the spike's the last",
           size(1, 1 << 16));

  using S = J::Slurm;
  InSection(table, "slurm", &J::slurm)
      .key("nodes", &S::nodes, "nodes to compute on; 0: cluster.ranks / tasks_per_node. cluster.spare_nodes come on top",
           size(0, largest_world))
      .key("tasks_per_node", &S::tasks_per_node, "workers a node; nodes x tasks_per_node replaces cluster.ranks",
           size(1, 4096))
      .key("time_limit", &S::time_limit, "as sbatch takes it: \"24:00:00\"")
      .key("partition", &S::partition, "partition of the job")
      .key("account", &S::account, "account that pays")
      .key("qos", &S::qos, "quality of service")
      .key("memory", &S::memory, "memory a node: \"64G\"")
      .key("constraint", &S::constraint, "features that a node must have")
      .key("cpus_per_task", &S::cpus_per_task, "cores a worker; 0: cluster.threads; beside a GPU 4 or more", size(0, 4096))
      .key("gpus_per_task", &S::gpus_per_task, "GPUs a worker", size(0, 64))
      .key("exclusive", &S::exclusive, "whole nodes, shared with nobody")
      .key("array", &S::array,
           "\"0-9%1\": ten jobs that go on with the run one after another; \"0-9\": a run for each number N, in task-N "
           "below the run directory, of seed + N")
      .key("dependency", &S::dependency, "starts after other jobs: \"afterok:17\"")
      .key("signal_seconds", &S::signal_seconds,
           "warning before the time limit, to save in; more where an earlier attempt has shown that it takes longer",
           size(1, 65535))
      .key("max_requeues", &S::max_requeues,
           "requeues after failures that can't be healed inside; time limits and preemptions don't count", size(0, 1e6))
      .key("setup", &S::setup, "lines of the shell run before the launch: [\"module load cuda/12.4\"]")
      .key("extra", &S::extra, "more #SBATCH options: [\"--reservation=maintenance\"]");
}

std::vector<JobKey> build_table() {
  Table table;
  table.add("name", [](JobConfig& c) { return JobField(&c.name); }, {}, "name of the run; its folder is runs/<name>");
  table.add("seed", [](JobConfig& c) { return JobField(&c.seed); }, {.most = 9e15},
            "of the first weights, the order of the data and dropout");
  add_model_keys(table);
  add_router_keys(table);
  add_data_and_optimizer_keys(table);
  add_operation_keys(table);
  return std::move(table.keys);
}

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  auto text = fmt::format("{}", value);  // the shortest that reads back as the same bits
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

template <class Range, class Show>
std::string array_text(const Range& values, Show show) {
  std::string text = "[";
  for (const auto& value : values) {
    if (text.size() > 1) text += ", ";
    text += show(value);
  }
  return text + "]";
}

}  // namespace

std::string on_one_line(std::string_view text) {
  std::string line;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      line += fmt::format("\\u{:04X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      line += c;
    }
  }
  return line;
}

std::string toml_quoted(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '"' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return '"' + on_one_line(escaped) + '"';
}

std::string toml_text(const JobField& field) {
  struct Visitor {
    std::string operator()(const std::int64_t* v) const { return fmt::format("{}", *v); }
    std::string operator()(const double* v) const { return number_text(*v); }
    std::string operator()(const bool* v) const { return *v ? "true" : "false"; }
    std::string operator()(const std::string* v) const { return toml_quoted(*v); }
    std::string operator()(const std::vector<std::string>* v) const { return array_text(*v, toml_quoted); }
    std::string operator()(const std::vector<double>* v) const { return array_text(*v, number_text); }
  };
  return std::visit(Visitor{}, field);
}

std::string listed(const std::vector<std::string>& words, std::string_view last) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? fmt::format(" {} ", last) : ", ";
    text += words[i];
  }
  return text;
}

const std::vector<JobKey>& job_key_table() {
  static const auto table = build_table();
  return table;
}

const JobKey* find_job_key(std::string_view key) {
  const auto& table = job_key_table();
  const auto found = std::find_if(table.begin(), table.end(), [&](const JobKey& k) { return k.info.key == key; });
  return found == table.end() ? nullptr : &*found;
}

}  // namespace smlp
