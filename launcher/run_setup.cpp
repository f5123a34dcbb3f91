#include "launcher/run_setup.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <iterator>
#include <random>

#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "core/host_name.h"
#include "core/json_lines.h"
#include "core/json_text.h"
#include "core/tell.h"
#include "core/version.h"
#include "launcher/processes.h"
#include "launcher/run_history.h"

namespace smlp {

namespace {

std::string new_identity() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}", device(), device());
}

// What run.json holds already; an empty object when there is none, or it is no JSON. Error(io_failed) where the disk does not
// give it: a run that is there would begin anew.
nlohmann::json known_identity(const RunDirectory& run) {
  if (kind_of_path(run.identity()) != PathKind::file) return nlohmann::json::object();
  auto known = parse_json(read_unless_absent(run.identity()).value_or(""));
  if (!known.is_object()) return nlohmann::json::object();
  const auto changes = known.find("accepted_changes");
  if (changes == known.end() || changes->is_array() || changes->is_null()) return known;
  throw Error(ExitCode::bad_data, fmt::format("{} is damaged: its accepted_changes, {}, is no list; put back the file as it was, "
                                              "or move it aside for a new one, which knows of no accepted change",
                                              run.identity().string(), in_words(*changes)));
}

bool was_accepted(const nlohmann::json& identity, const std::string& key, const std::string& value) {
  const auto& changes = identity["accepted_changes"];
  return std::any_of(changes.begin(), changes.end(), [&](const auto& change) {
    return change.is_object() && text_in(change, "key") == key && text_in(change, "to") == value;
  });
}

void keep_given_job(const RunDirectory& run, const std::string& resolved) {
  const auto given = read_if_there(run.job());
  if (given.empty() || given == resolved) return;
  const auto kept = run.given_job();
  if (const auto other = read_if_there(kept); !other.empty() && other != given) {
    throw Error(ExitCode::configuration,
                fmt::format("{} would be overwritten by the resolved job, and {} is another one kept before: move one of them, "
                            "or take another --run-dir",
                            run.job().string(), kept.string()));
  }
  write_durably(kept, given);
  tell("{} becomes the resolved job: what it held is kept as {}", run.job().string(), kept.string());
}

void refuse(const RunDirectory& run, const LoadedJob& now, const JobConfig& before,
            const std::vector<std::string>& keys) {
  std::vector<std::string> differences, options;
  for (const auto& key : keys) {
    options.push_back("--accept-change " + key);
    differences.push_back(fmt::format("{}: {} = {}, but the run has {}", origin_of(now, key), key,
                                      value_of(now.config, key), value_of(before, key)));
  }
  throw Error(ExitCode::configuration,
              fmt::format("the checkpoints in {} are of another job: {}. Take another --run-dir, or {} if that is "
                          "meant",
                          run.root.string(), fmt::join(differences, "; "), fmt::join(options, " ")));
}

bool is_of(const nlohmann::json& identity, const JobConfig& job) { return text_in(identity, "fingerprint") == fingerprint(job); }

// Keys in which the job differs from the run's, all of them accepted.
std::vector<std::string> newly_accepted(const RunDirectory& run, const nlohmann::json& identity, const LoadedJob& job,
                                        const JobConfig* before, const RunSettings& settings) {
  auto changed = before ? changed_keys(*before, job.config) : std::vector<std::string>();
  const auto accepted = [&](const std::string& key) {
    return std::find(settings.accepted_changes.begin(), settings.accepted_changes.end(), key) !=
           settings.accepted_changes.end();
  };
  for (const auto& key : settings.accepted_changes) value_of(job.config, key);  // refuses an unknown one
  // A start that accepted a key may have ended before it published a checkpoint with it.
  if (is_of(identity, job.config) && identity.contains("accepted_changes")) {
    std::erase_if(changed, [&](const auto& key) { return was_accepted(identity, key, value_of(job.config, key)); });
  }
  std::vector<std::string> refused;
  std::copy_if(changed.begin(), changed.end(), std::back_inserter(refused), [&](const auto& k) { return !accepted(k); });
  if (!refused.empty()) refuse(run, job, *before, refused);
  if (!changed.empty() && settings.expect_possible) settings.expect_possible(changed);
  return changed;
}

}  // namespace

void expect_job_of_run(const RunDirectory& run, const LoadedJob& job, const JobConfig* before, const RunSettings& settings) {
  newly_accepted(run, known_identity(run), job, before, settings);
}

void prepare_run(const RunDirectory& run, const LoadedJob& job, const JobConfig* before,
                 const RunSettings& settings) {
  RunHistory history(run);
  auto identity = known_identity(run);
  const bool first_start = identity.empty(), same_job = is_of(identity, job.config);
  if (!identity.contains("id")) identity["id"] = new_identity();
  if (!identity.contains("created")) identity["created"] = utc_time();
  if (!identity.contains("accepted_changes")) identity["accepted_changes"] = nlohmann::json::array();
  for (const auto& key : newly_accepted(run, identity, job, before, settings)) {
    const auto from = value_of(*before, key), to = value_of(job.config, key);
    history.event("change_accepted", 0, history.newest_step(), fmt::format("{}: {} becomes {}", key, from, to));
    identity["accepted_changes"].push_back({{"key", key}, {"from", from}, {"to", to}, {"time", utc_time()}});
  }

  // What the nodes may have saved of another job, before it published anything, is not this run's.
  if (!before && !same_job) std::filesystem::remove(run.local_tier());
  identity["name"] = job.config.name;
  identity["job_file"] = job.file.string();
  identity["fingerprint"] = fingerprint(job.config);
  identity["host"] = host_name();
  identity["versions"] = {{"smlp", version()}, {"compiler", compiler()}};
  if (!settings.init_from.empty()) identity["init_from"] = settings.init_from;
  const auto resolved = to_toml(job.config);
  if (first_start) keep_given_job(run, resolved);
  write_durably(run.job(), resolved);
  write_durably(run.identity(), json_text(identity, 2) + "\n");
  if (!settings.starts_now) return;
  history.event("run_started", 0, history.newest_step(), fmt::format("{} by process {} on {}", job.file.string(),
                                                                     getpid(), host_name()));
}

std::optional<std::filesystem::path> weights_given_before(const RunDirectory& run) {
  const std::filesystem::path given = text_in(known_identity(run), "init_from");
  if (given.empty()) return std::nullopt;
  if (kind_of_path(given) != PathKind::absent) return given;
  // Nodes may hold saves of the run's own: whether it needs these weights, its ranks alone find out.
  if (kind_of_path(run.local_tier()) != PathKind::absent) return given;
  if (RunHistory(run).newest_step()) return std::nullopt;
  throw Error(ExitCode::configuration,
              fmt::format("{} was to begin with the weights of {} (run.json), which is not there any more, and has no checkpoint "
                          "of its own yet: put it back, name another with --init-from, or take another --run-dir",
                          run.root.string(), given.string()));
}

}  // namespace smlp
