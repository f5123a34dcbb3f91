// Where everything of a run lies: the names of docs/running.md, in one place. Launcher and workers meet here
// and nowhere else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace smlp {

struct RunDirectory {
  std::filesystem::path root;

  std::filesystem::path job() const { return root / "job.toml"; }            // resolved
  std::filesystem::path given_job() const { return root / "job.given.toml"; }  // what a user had put in its place
  std::filesystem::path submitted_job() const { return root / "submit.toml"; }  // as `submit` read it
  std::filesystem::path submit_script() const { return root / "submit.sh"; }
  std::filesystem::path submit_lock() const { return root / "submit.lock"; }  // flock by `submit`
  std::filesystem::path identity() const { return root / "run.json"; }       // identity, fingerprint, versions
  std::filesystem::path attempts() const { return root / "attempts.jsonl"; }
  std::filesystem::path events() const { return root / "events.jsonl"; }
  std::filesystem::path metrics() const { return root / "metrics.jsonl"; }
  std::filesystem::path ledger() const { return root / "ledger.jsonl"; }     // where the time went: core/goodput.h
  std::filesystem::path targets() const { return root / "targets.json"; }    // Prometheus file_sd
  std::filesystem::path checkpoints() const { return root / "checkpoints"; }
  std::filesystem::path checkpoint(std::int64_t step) const;    // checkpoints/step-00000120, published
  std::filesystem::path manifest(std::int64_t step) const;      // checkpoints/step-00000120/manifest.json
  std::filesystem::path shard(std::int64_t step, int rank) const;  // checkpoints/step-00000120/rank-0000.h5
  std::filesystem::path control() const { return root / "control"; }         // requests to the live run
  std::filesystem::path heartbeats() const { return root / "heartbeats"; }   // one small file a rank, rewritten in place
  std::filesystem::path launcher_lock() const { return root / "lock"; }      // flock by the live launcher
  std::filesystem::path workers_lock() const { return root / "workers.lock"; }  // shared flock by each live worker
  std::filesystem::path launcher_pulse() const { return root / "launcher.pulse"; }  // launcher/batch_guard.h
  std::filesystem::path slurm_steps() const { return root / "slurm-steps"; }  // a job, and the step number it has reached
  std::filesystem::path drill() const { return root / "drill"; }             // core/drill_plan.h
  std::filesystem::path limits() const { return root / "limits.json"; }     // how long things take: worker/hang_limits.h
  std::filesystem::path local_tier() const { return root / "local_tier.json"; }  // what of it counts: worker/local_record.h
  std::filesystem::path save_intervals() const { return root / "save_intervals.json"; }  // worker/save_interval.h
  std::filesystem::path passed_over() const { return root / "passed_over.json"; }  // data left out: worker/passed_over.h
  std::filesystem::path logs() const { return root / "logs"; }
  std::filesystem::path guard_log() const { return logs() / "guard.log"; }   // of the step that watches the launcher's node
  std::filesystem::path verdict(int attempt) const;             // logs/attempt-0001/verdict.json: core/verdict.h
  std::filesystem::path log_folder(int attempt) const;          // logs/attempt-0001
  std::filesystem::path log(int attempt, int rank) const;       // logs/attempt-0001/rank-0000.log
  std::filesystem::path error(int attempt, int rank) const;     // logs/attempt-0001/rank-0000.error: why it left
  std::filesystem::path launch_log(int attempt) const;          // logs/attempt-0001/launch.log: mpirun's or srun's words
  std::filesystem::path heartbeat(int rank) const;              // heartbeats/rank-0000
};

std::string checkpoint_name(std::int64_t step);  // "step-00000120", of a published one
constexpr const char* manifest_name = "manifest.json";
std::string shard_name(int rank);  // "rank-0000.h5"
std::optional<std::int64_t> step_of_checkpoint(const std::string& name);  // the other way; nullopt: no such name

// Attempts are counted from 1; 0 in a line is none of them. A number from this on, in a file or a name, is damage.
constexpr int highest_attempt = 1'000'000;
std::optional<int> as_attempt(std::optional<std::int64_t> number) noexcept;  // nullopt: none that can be
std::optional<int> attempt_in(const nlohmann::json& line);                   // "attempt" of a line of the files above

// An array whose tasks train side by side has a run directory for each in its own: 3 of task-3; nullopt: it is none of them.
std::optional<std::int64_t> task_number(const RunDirectory& run);

// The newest attempt that has a log folder; 0: none. The first ones may be gone, or were another run's that this is a copy of.
int newest_attempt(const RunDirectory& run);

// The attempt that alone may publish checkpoints, as the file ATTEMPT in their folder says. 0: none has claimed it. Throws
// Error where the file is there, but can't be read.
constexpr const char* fence_name = "ATTEMPT";
int attempt_in_charge(const std::filesystem::path& checkpoints);

}  // namespace smlp
