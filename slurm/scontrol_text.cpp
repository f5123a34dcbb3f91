#include "slurm/scontrol_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <iomanip>
#include <optional>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

#include "core/numbers.h"

namespace smlp {

namespace {

using Fields = std::map<std::string, std::string>;

// The records of a list, each with its first line apart: it alone may hold free text before the facts.
struct Record {
  std::string head;
  Fields fields;  // the first of each name: free text comes last
  std::string reason;
};

std::vector<Record> records_of(const std::string& text, const std::string& first_field) {
  std::vector<Record> records;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(first_field)) {
      records.push_back({.head = line.substr(first_field.size()), .fields = {}, .reason = ""});
      continue;
    }
    if (records.empty() || !line.starts_with("   ")) continue;
    auto& record = records.back();
    if (line.starts_with("   Reason=")) record.reason = line.substr(10);
    std::istringstream words(line);
    for (std::string word; words >> word;) {
      const auto equals = word.find('=');
      if (equals != std::string::npos) record.fields.emplace(word.substr(0, equals), word.substr(equals + 1));
    }
  }
  return records;
}

std::string first_word(const std::string& text) { return text.substr(0, text.find(' ')); }

std::string field(const Record& record, const std::string& name) {
  const auto found = record.fields.find(name);
  return found == record.fields.end() ? "" : found->second;
}

// "1-02:03:04" in seconds; none for UNLIMITED and the like.
std::optional<std::int64_t> seconds_of(const std::string& text) {
  const auto dash = text.find('-');
  std::int64_t days = 0, hours = 0, minutes = 0, seconds = 0;
  char colon = 0;
  if (dash != std::string::npos) days = parse_whole_number(std::string_view(text).substr(0, dash)).value_or(0);
  std::istringstream clock(text.substr(dash == std::string::npos ? 0 : dash + 1));
  clock >> hours >> colon >> minutes >> colon >> seconds;
  return clock ? std::optional(((days * 24 + hours) * 60 + minutes) * 60 + seconds) : std::nullopt;
}

std::optional<std::int64_t> moment_of(const std::string& text) {
  std::tm time{};
  std::istringstream(text) >> std::get_time(&time, "%Y-%m-%dT%H:%M:%S");
  return time.tm_year > 0 ? std::optional<std::int64_t>(timegm(&time)) : std::nullopt;
}

// A job that ends but waits again already: its next run has no time yet, and an end that lies ahead or nowhere.
bool waits_again(const Record& job) {
  const auto ran = seconds_of(field(job, "RunTime")), limit = seconds_of(field(job, "TimeLimit"));
  if (ran && *ran > 0) return false;
  const auto start = moment_of(field(job, "StartTime")), end = moment_of(field(job, "EndTime"));
  return !start || !end || (limit && *limit > 0 && *end - *start >= *limit);
}

JobState why_it_ends(const Record& job, bool own) {
  const auto reason = field(job, "Reason"), preempted = field(job, "PreemptTime");
  if (waits_again(job)) return JobState::requeued;
  if (!preempted.empty() && preempted != "None") return JobState::preempted;
  const auto ran = seconds_of(field(job, "RunTime")), limit = seconds_of(field(job, "TimeLimit"));
  if (reason == "TimeLimit" || (ran && limit && *ran >= *limit)) return JobState::timeout;
  static const std::set<std::string> failures = {"NodeDown",    "SystemFailure",   "JobLaunchFailure",
                                                 "OutOfMemory", "NonZeroExitCode", "BootFailure"};
  if (failures.contains(reason)) return JobState::failed;
  return own ? JobState::cancelled : JobState::completing;
}

JobState state_of(const Record& job, bool own) {
  static const std::map<std::string, JobState> plain = {
      {"PENDING", JobState::pending},        {"COMPLETED", JobState::completed},
      {"CANCELLED", JobState::cancelled},    {"REVOKED", JobState::cancelled},
      {"PREEMPTED", JobState::preempted},    {"TIMEOUT", JobState::timeout},
      {"DEADLINE", JobState::timeout},       {"FAILED", JobState::failed},
      {"NODE_FAIL", JobState::failed},       {"BOOT_FAIL", JobState::failed},
      {"OUT_OF_MEMORY", JobState::failed},   {"REQUEUED", JobState::requeued},
      {"REQUEUE_HOLD", JobState::requeued},  {"REQUEUE_FED", JobState::requeued},
      {"SPECIAL_EXIT", JobState::requeued}};
  static const std::set<std::string> at_work = {"RUNNING",   "CONFIGURING", "RESIZING",  "SIGNALING",
                                                "SUSPENDED", "STOPPED",     "STAGE_OUT", "RESV_DEL_HOLD"};
  const auto state = first_word(field(job, "JobState"));
  if (state == "COMPLETING") return why_it_ends(job, own);
  if (const auto found = plain.find(state); found != plain.end()) return found->second;
  if (!at_work.contains(state)) return JobState::unknown;
  const auto preempted = field(job, "PreemptTime");
  return preempted.empty() || preempted == "None" ? JobState::running : JobState::preempted;
}

NodeState node_state(const std::string& text) {
  std::set<std::string> flags;
  std::string word;
  for (const char c : text + "+") {
    if (c == '+') {
      flags.insert(std::exchange(word, ""));
    } else if (c == '*') {  // as older versions mark it
      flags.insert("NOT_RESPONDING");
    } else if ((c >= 'A' && c <= 'Z') || c == '_') {
      word += c;
    }
  }
  const auto any = [&](std::initializer_list<const char*> names) {
    return std::any_of(names.begin(), names.end(), [&](const char* name) { return flags.contains(name); });
  };
  if (any({"DOWN", "ERROR", "FAIL", "FAILING", "INVAL", "FUTURE", "POWERED_DOWN", "POWERING_DOWN", "REBOOT_ISSUED"})) {
    return NodeState::down;
  }
  if (any({"NOT_RESPONDING", "NO_RESPOND"})) return NodeState::not_responding;
  if (any({"ALLOCATED", "MIXED", "ALLOC", "MIX"})) return NodeState::up;  // goes on with its work, draining or not
  if (any({"DRAIN", "DRAINED", "DRAINING"})) return NodeState::drained;
  return any({"IDLE", "COMPLETING", "RESERVED", "MAINT", "PLANNED"}) ? NodeState::up : NodeState::unknown;
}

}  // namespace

JobAnswer read_job(const std::string& text, const std::string& job_id, bool own) {
  const auto records = records_of(text, "JobId=");
  for (const auto& job : records) {
    // An array's first task has the array's id: then all of its tasks are listed.
    const bool only = records.size() == 1;
    if (!only && first_word(job.head) != job_id) continue;
    auto words = fmt::format("JobState={} Reason={}", field(job, "JobState"), field(job, "Reason"));
    for (const char* name : {"Restarts", "RunTime", "TimeLimit", "PreemptTime"}) {
      if (const auto value = field(job, name); !value.empty()) words += fmt::format(" {}={}", name, value);
    }
    return {.state = state_of(job, own), .words = words, .reason = field(job, "Reason")};
  }
  return {JobState::unknown, fmt::format("scontrol says nothing about job {}", job_id)};
}

std::map<std::string, NodeAnswer> read_nodes(const std::string& text) {
  std::map<std::string, NodeAnswer> nodes;
  for (const auto& node : records_of(text, "NodeName=")) {
    const auto name = first_word(node.head), state = field(node, "State");
    nodes[name] = {name, node_state(state), node.reason.empty() ? state : fmt::format("{}: {}", state, node.reason)};
  }
  return nodes;
}

}  // namespace smlp
