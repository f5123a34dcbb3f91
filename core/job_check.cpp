// Values of a job that must fit each other. What one value alone may be stands in the table (core/job_keys.cpp).
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/divisors.h"
#include "core/error.h"
#include "core/features.h"
#include "core/job_file.h"
#include "core/job_keys.h"
#include "core/model_check.h"
#include "core/numbers.h"
#include "core/slurm_values.h"

namespace smlp {

namespace {

constexpr const char* kept_from_run = "kept from the run's own job.toml";

class Checker {
 public:
  Checker(LoadedJob& job, Computed computed) : job_(job), c_(job.config), here_(computed == Computed::here) {}

  void run_name_alone() {
    check_name();
    refuse();
  }

  void run() {
    check_name();
    check_model();
    check_chains();
    check_sizes();
    check_batch();
    check_experts();
    check_shuffle();
    check_schedule();
    check_products();
    check_slurm();
    check_rest();
    refuse();
  }

 private:
  void refuse() const {
    if (!problems_.empty()) throw Error(code_, fmt::format("{}", fmt::join(problems_, "\n")));
  }

  // "demo.toml:12: model.experts = 5"
  std::string shown(const std::string& key) const {
    auto origin = origin_of(job_, key);
    if (origin == "default") origin = fmt::format("{} (by default)", job_.file.string());
    return fmt::format("{}: {} = {}", origin, key, value_of(c_, key));
  }
  void wrong(const std::string& key, const std::string& sentence) {
    problems_.push_back(fmt::format("{} {}", shown(key), sentence));
    code_ = ExitCode::configuration;
  }
  void resolve(const std::string& key, const std::string& how) { set_origin(job_, key, how); }

  void check_name() {
    const auto& name = c_.name;
    const bool control = std::any_of(name.begin(), name.end(), [](char ch) {
      return static_cast<unsigned char>(ch) < 0x20 || ch == 0x7F;
    });
    if (name.empty()) {
      problems_.push_back(fmt::format("{}: the job has no name; write name = \"…\" at the top", job_.file.string()));
    } else if (control || name.find('/') != std::string::npos || name == "." || name == "..") {
      wrong("name", "can't name a folder: leave out '/' and control characters");
    } else if (name.size() > 200) {
      wrong("name", "is too long to name a folder: at most 200 bytes");
    }
  }

  void check_model() {
    auto& m = c_.model;
    const ModelKind& kind = kind_of(m);
    const auto resolved = [&](const char* key, auto& value, const auto& wanted, const std::string& how) {
      if (value == wanted || origin_of(job_, key) != "default") return;
      value = wanted;
      resolve(key, how);
    };
    const auto of_kind = fmt::format("model.kind = \"{}\"", m.kind);
    if (!kind.has_experts()) resolved("model.sparse_blocks", m.sparse_blocks, 0, of_kind + " has none");
    if (kind.alternating) resolved("model.sparse_blocks", m.sparse_blocks, m.dense_blocks, of_kind + ": as many as dense ones");
    if (*kind.tokens != '\0') resolved("routing.tokens", c_.routing.tokens, std::string(kind.tokens), of_kind);
    for (const auto& [key, sentence] : model_problems(c_)) wrong(key, sentence);
  }

  // Each layer of a chain is an object, whose planning takes kilobytes.
  void check_chains() {
    const auto& m = c_.model;
    constexpr std::int64_t most = std::int64_t{1} << 16;
    if (m.sparse_blocks * m.expert_layers <= most) return;
    wrong("model.expert_layers", fmt::format("makes {} layers of experts in {} sparse blocks; choose {} at most",
                                             m.sparse_blocks * m.expert_layers, m.sparse_blocks, most / m.sparse_blocks));
  }

  // What is counted of a model must fit 64 bits: parameters, multiply-adds of two sequences, bytes of a step.
  void check_sizes() {
    const auto real = [](std::int64_t value) { return static_cast<double>(value); };
    const auto& m = c_.model;
    const double t = real(m.context), h = real(m.width), f = real(m.hidden), v = real(m.vocabulary);
    const double blocks = real(m.dense_blocks + m.sparse_blocks), experts = m.sparse_blocks > 0 ? real(m.experts) : 1;
    const double chain = m.sparse_blocks > 0 ? real(m.expert_layers) : 1;
    const double parameters = v * h + blocks * experts * (2 * h * f * chain + t * t * real(m.heads));
    const double multiply_adds = 2 * t * (blocks * (2 * h * f + t * f) + v * h);
    const double kept = real(c_.train.global_batch) * t * (blocks * (h + f) + v);
    if (std::max({parameters * 32, multiply_adds, kept * 64}) < 0x1p62) return;
    problems_.push_back(fmt::format(
        "{}: the sizes of the model are beyond counting: model.context = {}, width = {}, hidden = {}, {} blocks, {} experts, "
        "vocabulary = {}, train.global_batch = {} make about {:.0e} parameters and {:.0e} multiply-adds for two sequences",
        job_.file.string(), m.context, m.width, m.hidden, blocks, experts, m.vocabulary, c_.train.global_batch, parameters,
        multiply_adds));
  }

  void check_batch() {
    auto& t = c_.train;
    const std::int64_t at_once = c_.cluster.ranks * t.micro_batch;
    if (t.global_batch % at_once != 0) {
      const auto below = t.global_batch / at_once * at_once;
      auto remedy = below > 0 ? fmt::format("choose {} or {}", below, below + at_once)
                              : fmt::format("choose {}", at_once);
      if (t.global_batch % c_.cluster.ranks == 0) {
        remedy += fmt::format(", or train.micro_batch = {}",
                              largest_divisor(t.global_batch / c_.cluster.ranks, t.micro_batch));
      }
      wrong("train.global_batch",
            fmt::format("can't be shared out: {} ranks x micro-batches of {} take {} sequences at once, and the global "
                        "batch must be a multiple of that; {}",
                        c_.cluster.ranks, t.micro_batch, at_once, remedy));
    }
    auto& group = c_.routing.group_sequences;
    const bool routes = c_.model.sparse_blocks > 0;  // else nothing reads it, and no micro-batch must fit it
    if (group == 0 || !routes) {
      group = routes ? t.micro_batch : 1;
      resolve("routing.group_sequences", routes ? "train.micro_batch" : "model.sparse_blocks = 0");
    } else if (t.micro_batch % group != 0) {
      const bool inherited = origin_of(job_, "routing.group_sequences") == kept_from_run;
      wrong("routing.group_sequences",
            fmt::format("does not divide train.micro_batch = {}: a micro-batch is a whole number of groups; choose {}",
                        t.micro_batch,
                        inherited ? fmt::format("a micro-batch that is a multiple of {}", group)
                                  : neighbours(t.micro_batch, group)));
    }
  }

  void check_shuffle() {
    const auto tokens = c_.train.micro_batch * c_.model.context;
    if (!c_.routing.shuffle || c_.cluster.expert_ranks < 1 || tokens % c_.cluster.expert_ranks == 0) return;
    wrong("routing.shuffle", fmt::format("deals the {} tokens of a micro-batch out to {} ranks evenly, which does not work out; "
                                         "choose another train.micro_batch or model.context, or cluster.expert_ranks = {}",
                                         tokens, c_.cluster.expert_ranks, std::gcd(tokens, c_.cluster.expert_ranks)));
  }

  void check_experts() {
    auto& ways = c_.cluster.expert_ranks;
    const auto experts = c_.model.experts, ranks = c_.cluster.ranks;
    if (ways == 0) {
      ways = c_.model.sparse_blocks == 0 ? 1 : std::gcd(experts, ranks);
      resolve("cluster.expert_ranks",
              c_.model.sparse_blocks == 0 ? "no sparse blocks" : "gcd(model.experts, cluster.ranks)");
      return;
    }
    const auto common = std::gcd(experts, ranks);
    if (ranks % ways != 0) {
      wrong("cluster.expert_ranks",
            fmt::format("does not divide cluster.ranks = {}; choose {}", ranks, neighbours(common, ways)));
    } else if (c_.model.sparse_blocks > 0 && experts % ways != 0) {
      wrong("cluster.expert_ranks",
            fmt::format("does not divide model.experts = {}; choose {}", experts, neighbours(common, ways)));
    }
  }

  void check_schedule() {
    const auto& o = c_.optimizer;
    const auto& s = c_.schedule;
    if (o.betas.size() != 2) {
      wrong("optimizer.betas", fmt::format("has {} entries, but AdamW takes two, as in [0.9, 0.98]", o.betas.size()));
    }
    if (s.kind == "cosine") {
      check_cosine();
    } else {
      for (const auto& [key, given] : {std::pair{"schedule.minimum_rate", s.minimum_rate != 0},
                                       {"schedule.decay_steps", s.decay_steps != 0}}) {
        if (given) wrong(key, fmt::format("is a cosine's, and schedule.kind = \"{}\"; make it 0, or choose cosine", s.kind));
      }
    }
    if (s.warmup_steps > 0 && s.initial_rate > o.learning_rate) {
      wrong("schedule.initial_rate", fmt::format("is above optimizer.learning_rate = {}, so the warm-up would fall",
                                                 value_of(c_, "optimizer.learning_rate")));
    }
  }

  void check_cosine() {
    auto& s = c_.schedule;
    if (s.decay_steps == 0) {
      s.decay_steps = c_.train.steps;
      resolve("schedule.decay_steps", "train.steps");
    }
    if (s.decay_steps <= s.warmup_steps) {
      wrong("schedule.warmup_steps",
            fmt::format("leaves the cosine no step to fall, for it ends at step {} (schedule.decay_steps); choose less",
                        s.decay_steps));
    }
    if (s.minimum_rate > c_.optimizer.learning_rate) {
      wrong("schedule.minimum_rate", fmt::format("is above optimizer.learning_rate = {}, so the cosine would rise",
                                                 value_of(c_, "optimizer.learning_rate")));
    }
  }

  void check_products() {
    const JobConfig::Train& train = c_.train;
    const JobConfig::Train usual;
    if (train.tf32 && train.precision != "f32") {
      wrong("train.tf32", fmt::format("is for f32 products, and there are none in {}; leave it out", train.precision));
    }
    if (train.precision == "fp16") return;
    for (const auto& [key, changed] : {std::pair{"train.loss_scale", train.loss_scale != usual.loss_scale},
                                       {"train.loss_scale_window", train.loss_scale_window != usual.loss_scale_window}}) {
      if (changed) wrong(key, "is for fp16, whose gradients overflow; leave it out, or take train.precision = \"fp16\"");
    }
  }

  void check_slurm() {
    for (const auto& [key, sentence] : slurm_problems(c_.slurm)) wrong(key, sentence);
  }

  void check_rest() {
    const auto& d = c_.data;
    const double sum = std::accumulate(d.weights.begin(), d.weights.end(), 0.0);
    if (!d.weights.empty() && d.weights.size() != d.train.size()) {
      wrong("data.weights", fmt::format("has {} entries for {} files in data.train; give one for each", d.weights.size(),
                                        d.train.size()));
    } else if (!d.weights.empty() && sum <= 0) {
      wrong("data.weights", "sums to nothing; at least one must be above 0");
    }
    if (c_.checkpoint.keep_best && d.valid.empty()) {
      wrong("checkpoint.keep_best", "needs data.valid: the best is the one of the least validation loss");
    } else if (c_.checkpoint.keep_best && c_.train.eval_every == 0) {
      wrong("checkpoint.keep_best", "needs train.eval_every above 0: the best is the one of the least validation loss");
    }
    check_tiers();
    if (!is_address(c_.metrics.listen)) {
      wrong("metrics.listen", "is no IPv4 address or name and port; write it as \"127.0.0.1:0\" or \"0.0.0.0:9100\"");
    }
    check_communicator();
    if (c_.cluster.device == "cuda" && problems_.empty()) check_gpu();
  }

  void check_communicator() {
    if (c_.cluster.communicator == "auto") return;
    if (c_.cluster.device == "cpu") {
      wrong("cluster.communicator", "is for ranks on GPUs, and cluster.device = \"cpu\"; choose auto");
    } else if (c_.cluster.communicator == "nccl" && here_ && !built_with_nccl() && problems_.empty()) {
      wrong("cluster.communicator", "asks for NCCL, which this build of smlp has not; choose auto or staged");
      code_ = ExitCode::unavailable;
    }
  }

  void check_gpu() {
    if (c_.train.precision == "f64") {
      wrong("train.precision", "is f64, in which GPUs do not compute; choose f32, bf16 or fp16, or cluster.device = \"cpu\"");
    } else if (here_ && !built_with_cuda()) {
      wrong("cluster.device", "asks for a GPU, but this build of smlp computes on CPUs alone; choose cpu or auto");
      code_ = ExitCode::unavailable;
    }
  }

  void check_tiers() {
    const auto& c = c_.checkpoint;
    if (!c.local_dir.empty() && !c.local_dir.starts_with('/')) {
      wrong("checkpoint.local_dir", "is no absolute path: every node has its own, wherever the job was started");
    } else if (!c.local_dir.empty() && c.local_every_steps == 0 && !c.automatic) {
      wrong("checkpoint.local_every_steps", "leaves checkpoint.local_dir empty for good; give a number of steps, or "
                                            "checkpoint.auto = true");
    } else if (c.local_dir.empty() && c.local_every_steps > 0) {
      wrong("checkpoint.local_every_steps", "needs checkpoint.local_dir: where on the node?");
    }
    if (c.auto_least_seconds > c.auto_most_seconds) {
      wrong("checkpoint.auto_least_seconds", fmt::format("is above checkpoint.auto_most_seconds = {}",
                                                         value_of(c_, "checkpoint.auto_most_seconds")));
    }
  }

  static bool is_address(const std::string& text) {
    const auto colon = text.rfind(':');
    if (colon == std::string::npos || colon == 0) return false;
    if (text.substr(0, colon).find_first_of(":[] \t/") != std::string::npos) return false;
    const auto port = parse_whole_number(std::string_view(text).substr(colon + 1));
    return port && *port <= 65535;
  }

  LoadedJob& job_;
  JobConfig& c_;
  bool here_;  // this build computes it
  std::vector<std::string> problems_;
  ExitCode code_ = ExitCode::configuration;
};

}  // namespace

void check_and_resolve(LoadedJob& job, Computed computed) { Checker(job, computed).run(); }

void check_name(const LoadedJob& job) {
  auto copy = job;
  Checker(copy, Computed::elsewhere).run_name_alone();
}

void keep_resolved(LoadedJob& job, const JobConfig& run) {
  const auto keep = [&](const char* key, std::int64_t& value, std::int64_t of_run) {
    if (value != 0) return;
    value = of_run;
    set_origin(job, key, kept_from_run);
  };
  if (run.model.sparse_blocks > 0) {
    keep("routing.group_sequences", job.config.routing.group_sequences, run.routing.group_sequences);
  }
  if (job.config.schedule.kind == "cosine") {
    keep("schedule.decay_steps", job.config.schedule.decay_steps, run.schedule.decay_steps);
  }
}

}  // namespace smlp
