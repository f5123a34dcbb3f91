#include "launcher/outcome.h"

#include <fmt/format.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <regex>
#include <sstream>
#include <utility>

#include "core/attempt_end.h"
#include "core/error.h"
#include "core/files.h"
#include "core/numbers.h"
#include "launcher/processes.h"

namespace smlp {

namespace {

// mpirun's message that begins with the word `first` and goes on as `rest`; Open MPI folds at about 80 columns, also between
// these words. A look ends after a few lines: std::regex takes stack for each byte of a match, and ranks print what they like.
std::optional<std::cmatch> find(const std::string& words, const std::string& first, const char* rest) {
  constexpr std::size_t longest = 1000;
  const std::regex message(first + rest);
  std::cmatch match;
  for (auto at = words.find(first); at != std::string::npos; at = words.find(first, at + first.size())) {
    const char *begin = words.data() + at, *end = begin + std::min(longest, words.size() - at);
    if (std::regex_search(begin, end, match, message, std::regex_constants::match_continuous)) return match;
  }
  return std::nullopt;
}

std::string signal_named(const std::string& digits) {
  const auto number = parse_whole_number(digits);
  return number && std::in_range<int>(*number) ? signal_text(static_cast<int>(*number)) : "signal " + digits;
}

// Who ended first, in mpirun's words: "rank 1 was killed by signal 9 (SIGKILL)", "" when it says nothing.
std::string first_to_end(const std::string& words) {
  constexpr const char* of_a_signal = R"(\s+rank\s+(\d+)\s+with\s+PID\s+\d+\s+on\s+node\s+\S+\s+exited\s+on\s+signal\s+(\d+))";
  if (const auto m = find(words, "process", of_a_signal)) {
    return fmt::format("rank {} was killed by {}", (*m)[1].str(), signal_named((*m)[2].str()));
  }
  if (const auto m = find(words, "Process", R"(\s+name:\s+\[\[\d+,\d+\],(\d+)\]\s+Exit\s+code:\s+(\d+))")) {
    return fmt::format("rank {} left with exit code {}", (*m)[1].str(), (*m)[2].str());
  }
  if (const auto m = find(words, "MPI_ABORT", R"(\s+was\s+invoked\s+on\s+rank\s+(\d+)\s+[^.]*\s+with\s+errorcode\s+(\d+))")) {
    return fmt::format("rank {} left with exit code {}", (*m)[1].str(), (*m)[2].str());
  }
  return "";
}

// As shells tell of a death by signal; mpirun also has codes above, for faults of its own.
bool names_a_signal(int code) { return code > 128 && code <= 128 + SIGRTMAX; }

// What the ranks may leave with, by docs/running.md.
bool is_of_the_ranks(int code) {
  switch (static_cast<ExitCode>(code)) {
    case ExitCode::done:
    case ExitCode::usage:
    case ExitCode::bad_data:
    case ExitCode::unavailable:
    case ExitCode::fault:
    case ExitCode::io_failed:
    case ExitCode::call_again:
    case ExitCode::diverged:
    case ExitCode::configuration:
      return true;
    case ExitCode::difference:
      break;
  }
  return names_a_signal(code);
}

// The beginning of what the starter and the ranks printed, on one line, without the frames of Open MPI: ": …" or "".
std::string said(const std::string& words) {
  constexpr std::size_t longest = 300;
  std::string line;
  std::istringstream all(words.substr(0, 10 * longest));
  for (std::string word; line.size() < longest && all >> word;) {
    if (word.find_first_not_of('-') != std::string::npos) line += (line.empty() ? ": " : " ") + word;
  }
  if (line.size() > longest) line = line.substr(0, line.find_last_of(' ', longest)) + " …";
  while (!line.empty() && (line.back() == '.' || line.back() == ';')) line.pop_back();
  return line;
}

// In the words of SLURM, whose limit on a job's memory the kernel keeps by killing.
bool says_memory_ran_out(const std::string& words) {
  return words.find("oom_kill") != std::string::npos || words.find("oom-kill") != std::string::npos ||
         words.find("Out Of Memory") != std::string::npos;
}

}  // namespace

bool Outcome::is_final() const { return ends_the_run(code); }

std::string cause_of(int code) {
  switch (static_cast<ExitCode>(code)) {
    case ExitCode::done: return "done";
    case ExitCode::usage: return "usage";
    case ExitCode::bad_data: return "bad_data";
    case ExitCode::unavailable: return "unavailable";
    case ExitCode::io_failed: return "io";
    case ExitCode::call_again: return "stopped";
    case ExitCode::diverged: return "diverged";
    case ExitCode::configuration: return "configuration";
    default: break;
  }
  if (code == hung_status) return "hang";
  return code > 128 ? "signal" : "fault";
}

std::string first_error(const RunDirectory& run, int attempt, int ranks) {
  std::string sentence;
  std::filesystem::file_time_type earliest = std::filesystem::file_time_type::max();
  for (int rank = 0; rank < ranks; ++rank) {
    std::error_code absent;
    const auto written = std::filesystem::last_write_time(run.error(attempt, rank), absent);
    if (absent || written >= earliest) continue;
    earliest = written;
    sentence = read_if_there(run.error(attempt, rank));
  }
  while (!sentence.empty() && (sentence.back() == '\n' || sentence.back() == '.')) sentence.pop_back();
  return sentence;
}

Outcome explain_end(const RunDirectory& run, int attempt, int ranks, const std::string& starter, int status) {
  Outcome outcome;
  const auto words = read_if_there(run.launch_log(attempt));
  const int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  outcome.code = is_of_the_ranks(code) ? code : static_cast<int>(ExitCode::fault);  // the starter's own: it could not start them
  outcome.cause = WIFSIGNALED(status) ? "signal" : cause_of(outcome.code);  // SIGABRT's code is a hang's only from a rank
  if (WIFSIGNALED(status)) {
    outcome.reason = fmt::format("{} was killed by {}", starter, signal_text(WTERMSIG(status)));
    return outcome;
  }
  if (outcome.complete()) {
    outcome.reason = "done";
    return outcome;
  }
  outcome.reason = first_error(run, attempt, ranks);
  // Who leaves as asked leaves no such sentence.
  outcome.superseded = outcome.code == static_cast<int>(ExitCode::call_again) && !outcome.reason.empty();
  if (outcome.reason.empty() && outcome.code == static_cast<int>(ExitCode::call_again)) {
    outcome.reason = "the ranks saved and left";
  }
  const auto first = first_to_end(words);
  if (outcome.cause == "hang" && first.find("signal") != std::string::npos) outcome.cause = "signal";  // SIGABRT
  if (outcome.reason.empty()) outcome.reason = first;
  if (outcome.reason.empty() && names_a_signal(outcome.code)) {
    outcome.reason = fmt::format("a rank was killed by {}", signal_text(outcome.code - 128));
  }
  if (says_memory_ran_out(words)) outcome.reason += fmt::format("{}{}", outcome.reason.empty() ? "" : ": ", out_of_memory);
  if (outcome.reason.empty()) {
    outcome.reason = fmt::format("{} ended with exit code {}{}; its words are in {}", starter, code, said(words),
                                 run.launch_log(attempt).string());
  }
  return outcome;
}

}  // namespace smlp
