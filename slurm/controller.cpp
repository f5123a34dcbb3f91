#include "slurm/controller.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <sstream>

#include "core/clock.h"
#include "core/program.h"
#include "slurm/allocation.h"
#include "slurm/host_list.h"
#include "slurm/scontrol_text.h"
#include "slurm/submit_environment.h"

namespace smlp {

namespace {

bool is_job_id(const std::string& text) {
  return !text.empty() && text.size() < 40 && text.find_first_not_of("0123456789_") == std::string::npos;
}

bool is_node_name(const std::string& text) {
  const auto names = expand_hosts(text);
  return names && names->size() == 1 && names->front() == text;
}

std::string trimmed(std::string text) {
  const auto end = text.find_last_not_of(" \t\r\n");
  text.erase(end == std::string::npos ? 0 : end + 1);
  text.erase(0, text.find_first_not_of(" \t\r\n"));
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

std::string complaint(const std::string& program, const ProgramAnswer& answer) {
  if (!answer.failure.empty()) return answer.failure;
  const auto words = trimmed(answer.err.empty() ? answer.out : answer.err);
  return words.empty() ? fmt::format("{} ended with {} and said nothing", program, answer.code) : words;
}

// The controller itself was not reached: the same question may have an answer a moment later.
bool is_silence(const ProgramAnswer& answer) {
  constexpr std::array words = {"Unable to contact", "Connection refused", "timed out",   "Socket timed out",
                                "Communication ",    "Zero Bytes were",    "try again",   "Unexpected message received",
                                "standby mode"};
  if (answer.code == 0) return false;
  if (answer.code < 0 || answer.code > 127) return true;
  return std::any_of(words.begin(), words.end(),
                     [&](const char* part) { return answer.err.find(part) != std::string::npos; });
}

// Nor is there one to be asked: this host knows of no cluster.
bool has_no_controller(const ProgramAnswer& answer) {
  constexpr std::array words = {"ould not establish a configuration source", "resolve_ctls_from_dns_srv"};
  return std::any_of(words.begin(), words.end(),
                     [&](const char* part) { return answer.err.find(part) != std::string::npos; });
}

// The last message of several, which names the outcome, without "sbatch: error: ".
std::string last_message(const std::string& program, const std::string& text) {
  std::string last;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.find_first_not_of(" \t\r") != std::string::npos) last = trimmed(line);
  }
  for (const auto& prefix : {program + ": ", std::string("error: "), std::string("fatal: ")}) {
    if (last.starts_with(prefix)) last.erase(0, prefix.size());
  }
  return last;
}

ProgramAnswer ask(const ControllerOptions& options, const std::vector<std::string>& command) {
  const auto environment = query_environment(own_environment());
  for (int left = options.tries;;) {
    auto answer = run_program(command, environment, options.seconds);
    if (!is_silence(answer) || --left <= 0) return answer;
    sleep_seconds(options.pause_seconds);
  }
}

// `srun --mpi=list`: a heading, a type a line, and the versions of pmix behind a colon.
std::vector<std::string> types_listed(const std::string& text) {
  std::vector<std::string> types;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const std::string prefix = "srun: ";
    if (line.starts_with(prefix)) line.erase(0, prefix.size());
    const auto versions = line.find("available:");
    if (versions != std::string::npos) line.erase(0, versions + 10);
    std::replace(line.begin(), line.end(), ',', ' ');
    std::istringstream words(line);
    std::vector<std::string> found;
    for (std::string word; words >> word;) found.push_back(word);
    const bool heading = versions == std::string::npos && found.size() != 1;
    if (!heading) types.insert(types.end(), found.begin(), found.end());
  }
  return types;
}

}  // namespace

std::string_view name_of(JobState state) {
  constexpr std::array names = {"pending",   "running",  "completing", "completed", "cancelled",
                                "preempted", "requeued", "timeout",    "failed",    "unknown"};
  return names[static_cast<std::size_t>(state)];
}

bool LaunchTypes::has_pmix() const {
  return std::any_of(names.begin(), names.end(), [](const std::string& name) { return name.starts_with("pmix"); });
}

bool Controller::present() { return is_on_path("sbatch"); }

JobAnswer Controller::state_of_job(const std::string& job_id) const {
  if (!is_job_id(job_id)) return {JobState::unknown, fmt::format("'{}' is no job id", job_id)};
  const auto answer = ask(options_, {"scontrol", "show", "job", job_id});
  if (answer.code != 0) {
    const bool gone = answer.err.find("Invalid job id") != std::string::npos;
    return {.state = JobState::unknown, .words = complaint("scontrol", answer), .gone = gone};
  }
  return read_job(answer.out, job_id, is_job_around_us(job_id));
}

RequeueAnswer Controller::requeue(const std::string& job_id) const {
  if (!is_job_id(job_id)) return {false, fmt::format("'{}' is no job id", job_id)};
  const auto answer = ask(options_, {"scontrol", "requeue", job_id});
  return answer.code == 0 ? RequeueAnswer{true, ""} : RequeueAnswer{false, complaint("scontrol requeue", answer)};
}

std::vector<NodeAnswer> Controller::states_of_nodes(const std::vector<std::string>& names) const {
  std::vector<std::string> asked;
  std::copy_if(names.begin(), names.end(), std::back_inserter(asked), is_node_name);
  std::map<std::string, NodeAnswer> known;
  std::string silence = "SLURM does not know this node";
  if (!asked.empty()) {
    const auto answer = ask(options_, {"scontrol", "show", "node", compress_hosts(asked)});
    known = read_nodes(answer.out);  // of those it knows, also where it complains of others
    if (answer.code != 0 && known.empty()) silence = complaint("scontrol", answer);
  }
  std::vector<NodeAnswer> answers;
  for (const auto& name : names) {
    const auto found = known.find(name);
    const auto why = is_node_name(name) ? silence : fmt::format("'{}' is no name of a node", name);
    answers.push_back(found != known.end() ? found->second : NodeAnswer{name, NodeState::unknown, why});
  }
  return answers;
}

LaunchTypes Controller::launch_types() const {
  const auto answer = ask(options_, {"srun", "--mpi=list"});
  if (answer.code != 0) return {.answered = false, .names = {}, .words = complaint("srun", answer)};
  return {.answered = true, .names = types_listed(answer.out + "\n" + answer.err), .words = ""};
}

std::optional<std::vector<std::string>> Controller::partitions() const {
  const auto answer = ask(options_, {"sinfo", "--all", "--noheader", "--format=%R"});
  if (answer.code != 0) return std::nullopt;
  std::vector<std::string> names;
  std::istringstream lines(answer.out);
  for (std::string line; std::getline(lines, line);) {
    line = trimmed(line);
    if (!line.empty() && std::find(names.begin(), names.end(), line) == names.end()) names.push_back(line);
  }
  return names;
}

bool holds_partitions(const std::vector<std::string>& known, const std::string& wanted) {
  std::istringstream parts(wanted);
  bool any = false;
  for (std::string part; std::getline(parts, part, ','); any = true) {
    if (std::find(known.begin(), known.end(), part) == known.end()) return false;
  }
  return any;
}

Submission Controller::submit(const std::string& script_path, const std::vector<std::string>& arguments) const {
  std::vector<std::string> command = {"sbatch", "--parsable"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  command.push_back(script_path.starts_with("-") ? "./" + script_path : script_path);
  const auto environment = submit_environment(own_environment(), script_path, arguments);
  const auto answer = run_program(command, environment, options_.submit_seconds);
  if (answer.code < 0) {
    const bool late = answer.failure.find("did not answer") != std::string::npos;
    return {std::nullopt, false, answer.failure + (late ? "; whether the job was accepted, `squeue --me` tells" : "")};
  }
  if (answer.code > 0 && answer.code <= 127 && (is_silence(answer) || has_no_controller(answer))) {
    return {std::nullopt, false, fmt::format("SLURM's controller can't be reached from here: {} (sbatch); `sinfo` answers when it "
                                             "can be", last_message("sbatch", answer.err))};
  }
  if (answer.code != 0) return {std::nullopt, !is_silence(answer), complaint("sbatch", answer)};
  // "17", or "17;cluster"; what a site's plugins print stands before it.
  auto id = trimmed(answer.out.substr(0, answer.out.find_last_not_of(" \t\r\n") + 1));
  id = id.substr(id.find_last_of(" \t") + 1);
  id = id.substr(0, id.find(';'));
  if (!is_job_id(id)) {
    return {std::nullopt, false, fmt::format("sbatch named no job id, but said: {}", trimmed(answer.out))};
  }
  return {id, false, trimmed(answer.err)};
}

}  // namespace smlp
