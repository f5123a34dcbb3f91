#include "launcher/preflight.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "core/json_lines.h"
#include "core/quantities.h"
#include "core/statistics.h"
#include "core/utf8.h"
#include "core/version.h"

namespace smlp {

namespace {

constexpr double slowest_sync_seconds = 10;

std::string shown(std::string line) {
  line.erase(line.find_last_not_of(" \r\n") + 1);
  line = shortened(line, 60);
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  std::replace_if(line.begin(), line.end(), is_control, '?');
  return line;
}

std::string gflops(double rate) { return fmt::format("{:.3g} GFLOP/s", rate * 1e-9); }
std::string gigabytes(std::int64_t bytes) { return fmt::format("{:.3g} GB", static_cast<double>(bytes) * 1e-9); }

std::string other_version(const NodeReport& report) {
  return fmt::format("it has smlp {}, and here is {}; install the same on all nodes", report.version, version());
}

// Reads members and remembers the first that is missing or of another kind.
class Reader {
 public:
  Reader(const nlohmann::json& object, std::string place) : object_(object), place_(std::move(place)) {}
  std::int64_t integer(const char* key) {
    const auto value = integer_in(object_, key);
    if (!value || *value < 0) miss(key);
    return value.value_or(0);
  }
  double number(const char* key) {
    const auto value = number_in(object_, key);
    if (!value || !std::isfinite(*value) || *value < 0) miss(key);
    return value.value_or(0);
  }
  std::string text(const char* key, bool may_be_empty = false) {
    auto value = text_in(object_, key);
    const bool there = object_.contains(key) && object_[key].is_string();
    if (!there || (value.empty() && !may_be_empty)) miss(key);
    return value;
  }
  bool boolean(const char* key) {
    const bool there = object_.contains(key) && object_[key].is_boolean();
    if (!there) miss(key);
    return there && object_[key].get<bool>();
  }
  const nlohmann::json* object(const char* key) {
    if (object_.contains(key) && object_[key].is_object()) return &object_[key];
    miss(key);
    return nullptr;
  }
  void miss(const std::string& key) {
    if (missing_.empty()) missing_ = place_ + key;
  }
  const std::string& missing() const { return missing_; }

 private:
  const nlohmann::json& object_;
  std::string place_, missing_;
};

std::vector<Core> read_cores(const nlohmann::json& report) {
  const auto list = report.find("core_list");
  if (list == report.end() || !list->is_array()) return {};
  std::vector<Core> cores;
  for (const auto& core : *list) {
    if (!core.is_array()) return {};
    cores.emplace_back();
    for (const auto& cpu : core) {
      if (!cpu.is_number_unsigned() || cpu.get<std::uint64_t>() > 1 << 20) return {};
      cores.back().push_back(cpu.get<int>());
    }
  }
  return cores;
}

FolderReport read_folder(Reader& outer, const char* key) {
  FolderReport folder;
  const auto* object = outer.object(key);
  if (object == nullptr) return folder;
  Reader reader(*object, std::string(key) + ".");
  folder.path = reader.text("path");
  folder.free_bytes = reader.integer("free_bytes");
  folder.sync_seconds = reader.number("sync_seconds");
  folder.writable = reader.boolean("writable");
  folder.failure = reader.text("failure", true);
  if (!reader.missing().empty()) outer.miss(reader.missing());
  return folder;
}

// What all nodes together say: against it each is judged.
struct Common {
  std::size_t nodes = 0;
  double product_flops = 0;  // median; of two nodes the faster one's
  double clock_offset = 0;   // median, the launcher's own clock among them
  std::string isa;           // the most common
};

double clock_offset(const ProbeAnswer& answer, const NodeReport& report) {
  return report.clock_seconds - answer.received;
}

Common common_of(const std::vector<ProbeAnswer>& answers, const std::vector<ParsedReport>& parsed) {
  std::vector<double> speeds, offsets = {0};
  std::map<std::string, int> isas;
  Common common;
  int most = 0;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (!parsed[i].report) continue;
    const auto& report = *parsed[i].report;
    speeds.push_back(report.product_flops);
    if (answers[i].received > 0) offsets.push_back(clock_offset(answers[i], report));
    if (const int count = ++isas[report.isa]; count > most) {
      most = count;
      common.isa = report.isa;
    }
  }
  common.nodes = speeds.size();
  if (!speeds.empty()) {
    common.product_flops = speeds.size() == 2 ? std::max(speeds[0], speeds[1]) : median(speeds);
  }
  common.clock_offset = median(offsets);
  return common;
}

class Judgement {
 public:
  Judgement(const ProbeAnswer& answer, const JobConfig& job, const NodeDemands& demands, const Common& common)
      : answer_(answer), job_(job), demands_(demands), common_(common) {}

  NodeVerdict of(const ParsedReport& parsed) {
    if (!parsed.report) {
      reasons_.push_back(parsed.failure);
    } else {
      judge_software(*parsed.report);
      judge_run_directory(parsed.report->run_dir);
      judge_speed(*parsed.report);
      judge_room(*parsed.report);
      judge_clock(*parsed.report);
    }
    NodeVerdict verdict;
    verdict.node = answer_.node;
    verdict.fit = reasons_.empty();
    verdict.slow = slow_;
    if (parsed.report) {
      verdict.threads = parsed.report->threads;
      verdict.cores = parsed.report->core_list;
    }
    if (!verdict.fit) {
      verdict.sentences.push_back(fmt::format("node {} is left out: {}", answer_.node, fmt::join(reasons_, "; ")));
    }
    for (const auto& warning : warnings_) verdict.sentences.push_back(fmt::format("node {}: {}", answer_.node, warning));
    return verdict;
  }

 private:
  void judge_software(const NodeReport& report) {
    if (report.version != version()) {
      reasons_.push_back(other_version(report));
    }
    if (report.isa != common_.isa) {
      warnings_.push_back(fmt::format("it computes by {}, others by {}: results differ in their last bits by which "
                                      "nodes a run has", report.isa, common_.isa));
    }
  }

  void judge_run_directory(const FolderReport& folder) {
    const auto of = [&](const std::string& words) { reasons_.push_back(fmt::format("{} {}", folder.path, words)); };
    if (!folder.failure.empty()) return of(folder.failure);
    if (!folder.writable) return of("is not writable there");
    if (folder.free_bytes < demands_.free_bytes) {
      of(fmt::format("has {} free, and the checkpoints that are kept need {}; make room or keep fewer",
                     gigabytes(folder.free_bytes), gigabytes(demands_.free_bytes)));
    }
    if (folder.sync_seconds > slowest_sync_seconds) {
      of(fmt::format("took {:.1f} s to write a small file, {:.0f} s are allowed", folder.sync_seconds,
                     slowest_sync_seconds));
    }
  }

  void judge_speed(const NodeReport& report) {
    const double least = job_.cluster.slow_node_share * common_.product_flops;
    if (report.product_flops >= least) return;
    slow_ = true;
    const bool few = common_.nodes < 3;
    auto words = fmt::format("it is slow: {} in products, {} (cluster.slow_node_share = {})", gflops(report.product_flops),
                             few ? fmt::format("the other node {}", gflops(common_.product_flops))
                                 : fmt::format("the median of {} nodes is {}", common_.nodes, gflops(common_.product_flops)),
                             job_.cluster.slow_node_share);
    if (report.best_product_flops >= least) {
      words += fmt::format("; its best product reached {}, so that something else seems to compute there",
                           gflops(report.best_product_flops));
    }
    (!few && job_.cluster.slow_nodes == "exclude" ? reasons_ : warnings_).push_back(words);
  }

  void judge_room(const NodeReport& report) {
    const auto ranks = demands_.ranks_per_node, threads = job_.cluster.threads;
    const auto gpus = job_.cluster.communicator == "staged" ? 1 : ranks;  // those may share one
    if (job_.cluster.device == "cuda" && report.devices < gpus) {
      reasons_.push_back(fmt::format("it has {} GPUs for {} ranks", report.devices, ranks));
    }
    if (report.cores < ranks * threads) {
      warnings_.push_back(fmt::format("{} of {} share {}", counted(ranks, "rank"), counted(threads, "thread"),
                                      counted(report.cores, "core")));
    }
    const auto& local = report.local_dir;
    if (local && !local->failure.empty()) {
      warnings_.push_back(fmt::format("checkpoint.local_dir {} {}", local->path, local->failure));
    } else if (local && !local->writable) {
      warnings_.push_back(fmt::format("checkpoint.local_dir {} is not writable there", local->path));
    }
  }

  void judge_clock(const NodeReport& report) {
    const double skew = clock_offset(answer_, report) - common_.clock_offset;
    if (answer_.received <= 0 || std::abs(skew) <= job_.cluster.clock_skew_seconds) return;
    warnings_.push_back(fmt::format("its clock is {:.1f} s {} those of the others; times in logs and metrics will not fit",
                                    std::abs(skew), skew > 0 ? "ahead of" : "behind"));
  }

  const ProbeAnswer& answer_;
  const JobConfig& job_;
  const NodeDemands& demands_;
  const Common& common_;
  std::vector<std::string> reasons_, warnings_;
  bool slow_ = false;
};

}  // namespace

ParsedReport parse_node_report(const std::string& line) {
  const auto document = parse_json(line);
  if (!document.is_object()) return {{}, fmt::format("its answer is no report: '{}'", shown(line))};
  Reader reader(document, "");
  NodeReport report;
  report.isa = reader.text("isa");
  report.version = reader.text("version");
  report.cores = reader.integer("cores");
  report.threads = reader.integer("threads");
  report.core_list = read_cores(document);
  report.devices = reader.integer("devices");
  report.product_flops = reader.number("product_flops");
  report.best_product_flops = reader.number("best_product_flops");
  report.run_dir = read_folder(reader, "run_dir");
  const auto local = document.find("local_dir");
  if (local != document.end() && !local->is_null()) report.local_dir = read_folder(reader, "local_dir");
  report.clock_seconds = reader.number("clock_seconds");
  if (reader.missing().empty()) return {std::move(report), ""};
  // Another version may say other things; that it is another one is then the better reason.
  if (!report.version.empty() && report.version != version()) {
    return {{}, other_version(report)};
  }
  return {{}, fmt::format("its answer says nothing sound of '{}'", reader.missing())};
}

std::vector<NodeVerdict> judge(const std::vector<ProbeAnswer>& answers, const JobConfig& job, const NodeDemands& demands) {
  std::vector<ParsedReport> parsed;
  for (const auto& answer : answers) {
    if (!answer.failure.empty() || answer.line.empty()) {
      parsed.push_back({{}, answer.failure.empty() ? "it gave no answer" : answer.failure});
    } else {
      parsed.push_back(parse_node_report(answer.line));
    }
  }
  const auto common = common_of(answers, parsed);
  std::vector<NodeVerdict> verdicts;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    verdicts.push_back(Judgement(answers[i], job, demands, common).of(parsed[i]));
  }
  return verdicts;
}

}  // namespace smlp
