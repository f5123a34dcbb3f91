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
  std::filesystem::path identity() const { return root / "run.json"; }       // identity, fingerprint, versions
  std::filesystem::path attempts() const { return root / "attempts.jsonl"; }
  std::filesystem::path events() const { return root / "events.jsonl"; }
  std::filesystem::path metrics() const { return root / "metrics.jsonl"; }
  std::filesystem::path ledger() const { return root / "ledger.jsonl"; }     // where the time went: core/goodput.h
  std::filesystem::path targets() const { return root / "targets.json"; }    // Prometheus file_sd
  std::filesystem::path checkpoints() const { return root / "checkpoints"; }
  std::filesystem::path control() const { return root / "control"; }         // requests to the live run
  std::filesystem::path heartbeats() const { return root / "heartbeats"; }   // one small file a rank, rewritten in place
  std::filesystem::path launcher_lock() const { return root / "lock"; }      // flock by the live launcher
  std::filesystem::path workers_lock() const { return root / "workers.lock"; }  // shared flock by each live worker
  std::filesystem::path limits() const { return root / "limits.json"; }     // how long things take: worker/hang_limits.h
  std::filesystem::path local_tier() const { return root / "local_tier.json"; }  // what of it counts: worker/local_record.h
  std::filesystem::path save_intervals() const { return root / "save_intervals.json"; }  // worker/save_interval.h
  std::filesystem::path passed_over() const { return root / "passed_over.json"; }  // data left out: worker/passed_over.h
  std::filesystem::path verdict(int attempt) const;             // logs/attempt-0001/verdict.json: core/verdict.h
  std::filesystem::path log_folder(int attempt) const;          // logs/attempt-0001
  std::filesystem::path log(int attempt, int rank) const;       // logs/attempt-0001/rank-0000.log
  std::filesystem::path error(int attempt, int rank) const;     // logs/attempt-0001/rank-0000.error: why it left
  std::filesystem::path launch_log(int attempt) const;          // logs/attempt-0001/launch.log: mpirun's or srun's words
  std::filesystem::path heartbeat(int rank) const;              // heartbeats/rank-0000
};

// Attempts are counted from 1; 0 in a line is none of them. A number from this on, in a file or a name, is damage.
constexpr int highest_attempt = 1'000'000;
std::optional<int> as_attempt(std::optional<std::int64_t> number) noexcept;  // nullopt: none that can be
std::optional<int> attempt_in(const nlohmann::json& line);                   // "attempt" of a line of the files above

// The attempt that alone may publish checkpoints, as the file ATTEMPT in their folder says. 0: none has claimed it.
constexpr const char* fence_name = "ATTEMPT";
int attempt_in_charge(const std::filesystem::path& checkpoints) noexcept;

}  // namespace smlp
