#include "core/drill_plan.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/json_lines.h"
#include "core/json_text.h"
#include "core/random.h"

namespace smlp {

namespace {

struct Facts {
  const char* name;
  const char* sentence;
  bool by_rank, restarts;
  int phases;  // the first so many of step, save, start
};
constexpr std::array<Facts, fault_kinds> facts = {{
    {"kill", "a rank is killed", false, true, 3},
    {"kill-mpirun", "the program that started the ranks is killed", false, true, 3},
    {"kill-launcher", "`smlp run` is killed, and started again", false, true, 3},
    {"stop", "a rank is stopped and hangs", false, true, 2},
    {"nan", "a rank's gradient is NaN until the attempt ends", true, true, 1},
    {"slow", "a rank is slow for some steps", true, false, 1},
    {"torn-write", "a rank dies while it writes its part of a checkpoint", true, true, 1},
    {"torn-checkpoint", "a published checkpoint is damaged, and a rank is killed", false, true, 1},
    {"full-disk", "a rank's part of a checkpoint finds no room on the disk", true, false, 1},
    {"bit-flip", "a bit of a parameter changes in one rank's memory", true, true, 1},
}};
constexpr std::array phases = {"step", "save", "start"};
constexpr std::int64_t largest_plan = 1 << 20;
constexpr double most_slow_seconds = 2;
constexpr std::int64_t least_kept = 2;  // checkpoints, for one of them to be given up

const Facts& of(FaultKind kind) { return facts[static_cast<std::size_t>(kind)]; }

nlohmann::json to_json(const Fault& fault) {
  return {{"number", fault.number}, {"kind", name_of(fault.kind)}, {"phase", name_of(fault.phase)},
          {"rank", fault.rank},     {"step", fault.step},          {"fraction", fault.fraction},
          {"seconds", fault.seconds}};
}

std::optional<Fault> from_json(const nlohmann::json& json) {
  if (!json.is_object()) return std::nullopt;
  const auto kind = fault_named(text_in(json, "kind"));
  const auto phase = std::find(phases.begin(), phases.end(), text_in(json, "phase"));
  const auto number = integer_in(json, "number"), rank = integer_in(json, "rank"), step = integer_in(json, "step");
  if (!kind || phase == phases.end() || !number || !rank || !step) return std::nullopt;
  if (!std::in_range<int>(*number) || !std::in_range<int>(*rank)) return std::nullopt;
  return Fault{.number = static_cast<int>(*number),
               .kind = *kind,
               .phase = static_cast<FaultPhase>(phase - phases.begin()),
               .rank = static_cast<int>(*rank),
               .step = *step,
               .fraction = number_in(json, "fraction").value_or(0),
               .seconds = number_in(json, "seconds").value_or(0)};
}

// The numbers of a plan, each asked for once.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : stream_(seed, "drill") {}
  double uniform() { return stream_.uniform(next_++); }
  std::int64_t below(std::int64_t bound) { return static_cast<std::int64_t>(uniform() * static_cast<double>(bound)); }

 private:
  RandomStream stream_;
  std::uint64_t next_ = 0;
};

// Steps from where a fault is planned to where the run has come back from it: until the next save, which it may wait for, and
// as many as the drill may be behind. A disk that is full fails what is saved within an interval, and the next save makes up
// for it; a flipped bit is found when replicas are compared.
std::int64_t room_for(FaultKind kind, const DrillShape& shape) {
  auto room = (kind == FaultKind::full_disk ? 2 : 1) * shape.save_every;
  if (kind == FaultKind::bit_flip) room = std::max(room, shape.compare_every);
  return room + most_unseen_steps + 2;
}

std::vector<FaultKind> shuffled(std::span<const FaultKind> kinds, Dice& dice) {
  std::vector<FaultKind> order(kinds.begin(), kinds.end());
  for (auto left = std::ssize(order); left > 1; --left) {
    std::swap(order[static_cast<std::size_t>(left - 1)], order[static_cast<std::size_t>(dice.below(left))]);
  }
  return order;
}

}  // namespace

const char* name_of(FaultKind kind) { return of(kind).name; }
const char* name_of(FaultPhase phase) { return phases[static_cast<std::size_t>(phase)]; }
const char* describe(FaultKind kind) { return of(kind).sentence; }
bool by_rank(FaultKind kind) { return of(kind).by_rank; }
bool restarts(FaultKind kind) { return of(kind).restarts; }

std::vector<std::string> fault_names() {
  std::vector<std::string> names;
  for (const auto& one : facts) names.emplace_back(one.name);
  return names;
}

std::optional<FaultKind> fault_named(const std::string& name) {
  for (std::size_t i = 0; i < facts.size(); ++i) {
    if (name == facts[i].name) return static_cast<FaultKind>(i);
  }
  return std::nullopt;
}

std::string why_not(FaultKind kind, const DrillShape& shape) {
  if (kind == FaultKind::torn_checkpoint && shape.keep_last < least_kept) {
    return fmt::format("checkpoint.keep_last is {}: there is none to go back to but the damaged one; let {} stay",
                       shape.keep_last, least_kept);
  }
  if (kind != FaultKind::bit_flip) return "";
  if (shape.ranks < 2) return "one rank has nobody to compare its parameters with";
  if (shape.shard_states) {
    return "with optimizer.shard_states each update writes every copy of a parameter anew from one rank's: nobody would notice";
  }
  return shape.compare_every == 0 ? "cluster.replica_check_every is 0: nobody would notice" : "";
}

std::vector<Fault> plan_faults(std::uint64_t seed, std::span<const FaultKind> kinds, int count,
                               const DrillShape& shape) {
  expect(!kinds.empty() && count > 0 && shape.save_every > 0, "a drill without faults or saves");
  for (const auto kind : kinds) {
    if (const auto reason = why_not(kind, shape); !reason.empty()) {
      throw Error(ExitCode::configuration, fmt::format("no fault of kind {} can strike this job: {}", name_of(kind), reason));
    }
  }
  Dice dice(seed);
  std::vector<FaultKind> order, left;
  std::int64_t needed = 4 * shape.save_every;  // two saves before the first and two after the last has come back
  for (int i = 0; i < count; ++i) {
    if (left.empty()) left = shuffled(kinds, dice);
    order.push_back(left.back());
    left.pop_back();
    needed += room_for(order.back(), shape);
  }
  if (shape.steps < needed) {
    throw Error(ExitCode::configuration,
                fmt::format("train.steps = {} has no room for {} faults in a job that saves every {} steps: {} steps are "
                            "needed, or fewer faults (--count)",
                            shape.steps, count, shape.save_every, needed));
  }
  const double spare = static_cast<double>(shape.steps - needed) / count;
  std::vector<Fault> plan;
  std::int64_t begin = 2 * shape.save_every;
  for (int i = 0; i < count; ++i) {
    Fault fault{.number = i + 1, .kind = order[static_cast<std::size_t>(i)]};
    fault.phase = static_cast<FaultPhase>(dice.below(of(fault.kind).phases));
    fault.rank = static_cast<int>(dice.below(shape.ranks));
    fault.step = begin + static_cast<std::int64_t>(spare * (i + dice.uniform()));
    fault.fraction = dice.uniform();
    if (fault.kind == FaultKind::slow) fault.seconds = std::min(most_slow_seconds, shape.hang_floor_seconds / 2);
    begin += room_for(fault.kind, shape);
    plan.push_back(fault);
  }
  return plan;
}

std::filesystem::path DrillFolder::turn(int number) const { return folder_ / fmt::format("turn-{:04}", number); }
std::filesystem::path DrillFolder::mark(int number) const { return folder_ / fmt::format("struck-{:04}.json", number); }

void DrillFolder::begin(std::span<const Fault> faults) const {
  auto list = nlohmann::json::array();
  for (const auto& fault : faults) list.push_back(to_json(fault));
  std::filesystem::create_directories(folder_);
  write_atomically(progress(), "");
  write_atomically(folder_ / "plan.json", json_text(nlohmann::json({{"faults", list}}), 2) + "\n");
}

std::vector<Fault> DrillFolder::plan() const {
  const auto file = folder_ / "plan.json";
  const auto json = read_json_file(file, largest_plan);
  if (!json.is_object() || !json.contains("faults") || !json["faults"].is_array()) {
    throw Error(ExitCode::configuration, fmt::format("{} holds no plan of a drill", file.string()));
  }
  std::vector<Fault> plan;
  for (const auto& one : json["faults"]) {
    const auto fault = from_json(one);
    if (!fault) throw Error(ExitCode::configuration, fmt::format("{}: {} is no fault", file.string(), json_text(one)));
    plan.push_back(*fault);
  }
  return plan;
}

void DrillFolder::open_turn(int number) const { write_atomically(turn(number), ""); }
bool DrillFolder::is_turn(int number) const { return ::access(turn(number).c_str(), F_OK) == 0; }

bool DrillFolder::strike(int number, const Strike& strike) const {
  const auto text = json_text(nlohmann::json({{"number", number}, {"step", strike.step}, {"attempt", strike.attempt},
                                    {"time", strike.time}, {"damaged", strike.damaged}})) + "\n";
  static std::atomic<int> used = 0;
  const auto beside = folder_ / fmt::format("struck-{:04}.{}-{}.new", number, ::getpid(), ++used);
  write_atomically(beside, text);
  const bool first = ::link(beside.c_str(), mark(number).c_str()) == 0;  // whole, and never over another's
  ::unlink(beside.c_str());
  return first;
}

std::optional<Strike> DrillFolder::struck(int number) const {
  const auto json = read_json_file(mark(number), largest_plan);
  if (!json.is_object()) return std::nullopt;
  const auto step = integer_in(json, "step");
  const auto attempt = attempt_in(json);
  const auto time = number_in(json, "time");
  if (!step || !attempt || !time) return std::nullopt;
  return Strike{*step, *attempt, *time, integer_in(json, "damaged").value_or(0)};
}

// The length of a file changes at once: nobody reads half of a number.
void DrillFolder::see(std::int64_t step) const noexcept {
  [[maybe_unused]] const int told = ::truncate(progress().c_str(), step);
}

std::int64_t DrillFolder::seen() const noexcept {
  std::error_code absent;
  const auto size = std::filesystem::file_size(progress(), absent);
  return absent ? std::numeric_limits<std::int64_t>::max() : static_cast<std::int64_t>(size);
}

}  // namespace smlp
