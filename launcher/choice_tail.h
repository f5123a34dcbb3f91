// Follows events.jsonl from an attempt's start until its ranks have chosen the checkpoint that they go on from: only they
// look at what checkpoints hold, so what is said of the choice is theirs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json_lines.h"
#include "core/run_directory.h"

namespace smlp {

class ChoiceTail {
 public:
  explicit ChoiceTail(const RunDirectory& run);  // begins at its present end

  // `expects_checkpoint`: one lies there, so that to begin with the first step would be news.
  void begin_attempt(int attempt, bool expects_checkpoint);
  // What is new, a sentence each: a checkpoint that the ranks reject, and why; from where they go on. None after that.
  std::vector<std::string> read();
  std::optional<std::int64_t> step() const { return step_; }  // of the checkpoint they took; none: the first step, or not yet
  std::optional<std::int64_t> begun_at() const { return begun_at_; }  // the same; 0: the first step, none: not yet

 private:
  void take(const nlohmann::json& line, std::vector<std::string>& sentences);

  JsonTail file_;
  int attempt_ = 0;
  bool expects_checkpoint_ = false, chosen_ = true;
  std::optional<std::int64_t> step_, begun_at_;
};

}  // namespace smlp
