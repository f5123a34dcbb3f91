// A drill: faults planned from a seed, which strike a run one after another while it is watched, and RUN/drill, the
// folder in which the drill (launcher/drill.h) and the ranks (worker/drill_faults.h) meet:
//   plan.json          {"faults":[{"number","kind","phase","rank","step","fraction","seconds"}]}   by the drill, at first
//   turn-0002          the run has come back from the faults before: this one may strike           by the drill
//   struck-0002.json   {"number","step","attempt","time"}, so that no attempt after strikes again   by who struck
//   seen               as many bytes long as the drill has seen steps: the ranks wait where they are too far ahead  by the drill
// Ranks look there only where the environment names that folder of their own run: SMLP_DRILL. Anything else that it
// names is refused, so that a variable which was left behind can't hurt another run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/run_directory.h"

namespace smlp {

enum class FaultKind : std::uint8_t {
  kill,             // SIGKILL to a rank
  kill_mpirun,      // ... to the program that started the ranks
  kill_launcher,    // ... to `smlp run`, which the drill starts again
  stop,             // SIGSTOP to a rank: it hangs
  nan,              // a rank's gradient is NaN from this step on until the attempt ends
  slow,             // a rank takes longer for some steps, within what the hang limits allow
  torn_write,       // a rank dies while it writes its part of a checkpoint: half of the file is there
  torn_checkpoint,  // a file of the newest published checkpoint loses its second half, then a rank dies
  full_disk,        // a rank's part of a checkpoint finds no room for as many steps as there are between two saves
  bit_flip,         // a bit of a parameter that all ranks hold changes in one rank's memory
};
constexpr std::size_t fault_kinds = 10;

enum class FaultPhase : std::uint8_t {
  step,   // while steps are done
  save,   // while a checkpoint is being written
  start,  // while the ranks start again, one of them having been killed at the step
};

const char* name_of(FaultKind kind);    // "kill-launcher"
const char* name_of(FaultPhase phase);
const char* describe(FaultKind kind);   // a sentence
std::vector<std::string> fault_names();
std::optional<FaultKind> fault_named(const std::string& name);

bool by_rank(FaultKind kind);   // the rank itself strikes; the others come from outside
bool restarts(FaultKind kind);  // the attempt must end of it

struct Fault {
  int number = 1;  // from 1, in the order in which they strike
  FaultKind kind = FaultKind::kill;
  FaultPhase phase = FaultPhase::step;
  int rank = 0;
  std::int64_t step = 0;  // strikes when this one is done (from outside) or taken (by the rank), or soon after
  double fraction = 0;    // [0, 1): how far into the step, the save or the start
  double seconds = 0;     // how much longer each step takes: slow
};
constexpr std::int64_t slow_steps = 3;
// The ranks do no more steps than these that the drill has not seen: small steps take less time than its looks, and the
// fault of step 250 once struck at step 300, the last.
constexpr std::int64_t most_unseen_steps = 4;

// What a plan needs to know of the job.
struct DrillShape {
  std::int64_t steps = 0, save_every = 0;
  std::int64_t compare_every = 0;  // steps between two comparisons of replicas; 0: never
  std::int64_t ranks = 1;
  bool shard_states = false;
  double hang_floor_seconds = 15;
  std::int64_t keep_last = 3;  // checkpoints
};

// Kinds that can strike such a job; the others with a reason why not.
std::string why_not(FaultKind kind, const DrillShape& shape);  // "": it can
// `count` faults of these kinds, all before any twice, in an order, at steps and on ranks that follow from the seed
// alone. Two saves come before the first, one or more between, and two when the run has come back from the last; each has room
// to strike late, as far as the drill may be behind, and for the run to come back. Throws Error(configuration).
std::vector<Fault> plan_faults(std::uint64_t seed, std::span<const FaultKind> kinds, int count,
                               const DrillShape& shape);

struct Strike {
  std::int64_t step = 0;
  int attempt = 0;
  double time = 0;           // seconds since 1970
  std::int64_t damaged = 0;  // the checkpoint of which step; 0: none
};

class DrillFolder {
 public:
  static constexpr const char* variable = "SMLP_DRILL";
  explicit DrillFolder(const RunDirectory& run) : folder_(run.drill()) {}

  const std::filesystem::path& path() const { return folder_; }
  void begin(std::span<const Fault> faults) const;  // makes the folder; throws Error(io_failed)
  std::vector<Fault> plan() const;                  // throws Error(configuration) where there is none
  void open_turn(int number) const;
  bool is_turn(int number) const;
  bool strike(int number, const Strike& strike) const;  // false: it has struck before
  std::optional<Strike> struck(int number) const;
  void see(std::int64_t step) const noexcept;
  std::int64_t seen() const noexcept;  // beyond all steps where nobody looks, as under a plan written by hand

 private:
  std::filesystem::path turn(int number) const;
  std::filesystem::path mark(int number) const;
  std::filesystem::path progress() const { return folder_ / "seen"; }
  std::filesystem::path folder_;
};

}  // namespace smlp
