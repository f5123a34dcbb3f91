// The launcher's memory, all of it in files of the run directory: attempts.jsonl (one line an attempt),
// events.jsonl (what happened), the published checkpoints. A launcher that dies loses nothing.
#pragma once

#include <cstdint>
#include <deque>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/run_directory.h"

namespace smlp {

struct AttemptRecord {
  int attempt = 0;
  std::int64_t ranks = 0, threads = 0, expert_ranks = 0;
  std::vector<std::string> nodes{};                       // of an allocation, in the order of ranks
  std::string host{}, started{}, ended{};               // times in UTC
  std::optional<std::int64_t> first_step{}, last_step{};  // done by this attempt; none: it never got so far
  std::optional<std::int64_t> from_checkpoint{};    // that its ranks chose; none: the first step, or they never came so far
  int exit_code = 0;                              // 128 + signal for a death by signal
  std::string cause{};                              // a word, for metrics: "signal", "hang", "fault", ...
  std::string reason{};                             // a sentence
};

class RunHistory {
 public:
  explicit RunHistory(RunDirectory run) : run_(std::move(run)) {}

  // One more than any attempt that left a line, a log folder or its number on the checkpoints (which may be copied
  // from another run). An attempt whose launcher died before it could write its line gets one now.
  int begin_attempt();
  std::optional<nlohmann::json> last_attempt() const;
  std::optional<int> last_to_choose() const;     // newest attempt whose ranks say from which checkpoint they started
  std::optional<std::int64_t> chosen_by(int attempt) const;  // step of the checkpoint that its ranks say they go on from
  std::string cause_of(int attempt) const;       // as its line has it; "" where it has none
  // A disk that is full must not end a run: lines that can't be written are reported to stderr, once, and written with
  // a later one.
  void append(const AttemptRecord& record);
  std::int64_t count_events(const std::string& name, const std::string& detail = "") const;  // any detail where none is named
  void event(const std::string& name, int attempt, std::optional<std::int64_t> step, const std::string& detail);

  std::vector<std::int64_t> published_steps() const;           // ascending; directories step-NNNNNNNN with a manifest; as
                                                               // they were, while the disk can't list them
  std::optional<std::int64_t> newest_step() const;
  std::optional<std::int64_t> newest_step_before(std::int64_t step) const;
  std::int64_t bytes_of_newest() const;  // of its files; 0 without one

 private:
  int fence() const;
  std::optional<std::int64_t> step_of_start(int attempt) const;
  void append_safely(const std::filesystem::path& file, const nlohmann::json& line);
  void write_waiting();

  RunDirectory run_;
  std::deque<std::pair<std::filesystem::path, std::string>> waiting_;  // lines that found no room, oldest first
  int newest_ended_ = 0;  // attempt whose record is written or waits
  bool complained_ = false;
  mutable std::vector<std::int64_t> published_;  // as last listed
};

}  // namespace smlp
