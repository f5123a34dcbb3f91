#include "checkpoint/checkpoint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "checkpoint/manifest.h"
#include "commands/commands.h"
#include "commands/print_json.h"
#include "commands/with_checkpoint.h"
#include "core/error.h"
#include "core/quantities.h"
#include "core/run_directory.h"
#include "core/tell.h"

namespace smlp {

namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct CheckpointOptions {
  std::string path, other;
  bool json = false, quick = false;
};

bool is_one_checkpoint(const fs::path& path) { return fs::exists(path / manifest_name); }

// For what vouches for the bytes it reads by itself: a checkpoint named outright is not verified first.
fs::path chosen(const std::string& path) {
  if (is_one_checkpoint(path)) return path;
  return chosen_checkpoint(path);
}

fs::path folder_of_run(const fs::path& path) {
  if (!fs::is_directory(path)) {
    throw Error(ExitCode::configuration, fmt::format("{} is not a run directory", path.string()));
  }
  const auto checkpoints = RunDirectory{path}.checkpoints();
  return fs::is_directory(checkpoints) ? checkpoints : path;
}

ordered_json to_json(const CheckpointInfo& info) {
  return {{"step", info.step},      {"path", info.path.string()}, {"bytes", info.bytes},
          {"ranks", info.ranks},    {"valid", info.valid},        {"reason", info.reason},
          {"attempt", info.attempt}};
}

ordered_json to_json(const std::vector<CheckpointInfo>& list) {
  auto all = ordered_json::array();
  for (const auto& info : list) all.push_back(to_json(info));
  return all;
}

void print_lines(const std::vector<CheckpointInfo>& list) {
  for (const auto& info : list) {
    const auto name = fs::weakly_canonical(info.path).filename().string();  // of "." too
    if (info.valid) {
      fmt::print("{}  {:>10}  {} ranks  sound\n", name, size_text(info.bytes), info.ranks);
    } else {
      fmt::print("{}  does not hold: {}\n", name, info.reason);
    }
  }
}

// Or may hold one soon: a run has its job before its first checkpoint.
bool holds_a_run(const fs::path& path) {
  const auto whole = fs::absolute(path / "").lexically_normal().parent_path();
  const RunDirectory run{path};
  return fs::is_directory(run.checkpoints()) || fs::exists(run.job()) || whole.filename() == run.checkpoints().filename();
}

void list(const CheckpointOptions& options) {
  const fs::path path = options.path;
  std::vector<CheckpointInfo> all;
  if (is_one_checkpoint(path)) {
    all.push_back(options.quick ? inspect_checkpoint(path) : verify_checkpoint(path));
  } else {
    all = list_checkpoints(folder_of_run(path), !options.quick);
  }
  if (all.empty() && !holds_a_run(path)) {
    throw Error(ExitCode::configuration, fmt::format("{} is not a run directory", options.path));
  }
  if (options.json) return print_json(to_json(all));
  if (all.empty()) tell("there is no checkpoint in {}", options.path);
  print_lines(all);
}

// One checkpoint, also when it lacks its manifest; or all of a run.
std::vector<CheckpointInfo> verified(const fs::path& path) {
  if (is_one_checkpoint(path)) return {verify_checkpoint(path)};
  auto all = list_checkpoints(folder_of_run(path), true);
  if (!all.empty()) return all;
  if (path.filename().string().starts_with("step-")) return {verify_checkpoint(path)};
  throw Error(ExitCode::configuration, fmt::format("there is no checkpoint in {}", path.string()));
}

void verify(const CheckpointOptions& options) {
  const fs::path path = options.path;
  const auto all = verified(path.has_filename() ? path : path.parent_path());
  std::string reasons;
  bool damage = false;
  for (const auto& info : all) {
    damage = damage || (!info.valid && !info.unreadable);
    if (!info.valid)
      reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "\n", info.path.string(), info.reason);
  }
  if (options.json) {
    print_json({{"valid", reasons.empty()}, {"reason", reasons}, {"checkpoints", to_json(all)}});
  } else {
    print_lines(all);
  }
  if (!reasons.empty()) throw Error(damage ? ExitCode::bad_data : ExitCode::io_failed, reasons);
}

ordered_json to_json(const RunState& state) {
  ordered_json document = {
      {"integers", state.integers}, {"numbers", ordered_json::object()}, {"texts", state.texts}};
  for (const auto& [name, values] : state.numbers) {
    auto& numbers = document["numbers"][name] = ordered_json::array();
    for (const double value : values) {
      numbers.push_back(std::isfinite(value) ? ordered_json(value) : ordered_json(fmt::format("{}", value)));
    }
  }
  return document;
}

// A text of several lines stands below its name.
void print_text(const std::string& name, const std::string& text) {
  if (text.find('\n') == std::string::npos) return fmt::print("  {} = \"{}\"\n", name, text);
  fmt::print("  {}\n", name);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) fmt::print("    {}\n", line);
}

void show(const CheckpointOptions& options) {
  const auto path = chosen(options.path);
  const auto info = inspect_checkpoint(path);
  const auto state = read_run_state(path);
  const auto tensors = list_tensors(path);
  if (options.json) {
    auto document = to_json(info);
    document["run_state"] = to_json(state);
    document["tensors"] = ordered_json::array();
    for (const auto& tensor : tensors) {
      auto shape = ordered_json::array();
      for (int i = 0; i < tensor.shape.rank(); ++i) shape.push_back(tensor.shape[i]);
      document["tensors"].push_back(
          {{"name", tensor.name}, {"dtype", name_of(tensor.dtype)}, {"shape", shape}});
    }
    return print_json(document);
  }
  fmt::print("{}: step {}, written by attempt {} on {} ranks, {}\n", path.string(), info.step, info.attempt,
             info.ranks, size_text(info.bytes));
  if (!info.valid) fmt::print("does not hold: {}\n", info.reason);
  fmt::print("\nrun state\n");
  for (const auto& [name, values] : state.integers) fmt::print("  {} = {}\n", name, fmt::join(values, " "));
  for (const auto& [name, values] : state.numbers) fmt::print("  {} = {}\n", name, fmt::join(values, " "));
  for (const auto& [name, text] : state.texts) print_text(name, text);
  fmt::print("\ntensors\n");
  std::size_t widest = 0;
  for (const auto& tensor : tensors) widest = std::max(widest, tensor.name.size());
  for (const auto& tensor : tensors) {
    fmt::print("  {:<{}}  {:<4}  {}\n", tensor.name, widest, name_of(tensor.dtype), tensor.shape.text());
  }
}

int diff(const CheckpointOptions& options) {
  const auto a = chosen(options.path), b = chosen(options.other);
  const auto differences = diff_checkpoints(a, b);
  if (options.json) {
    auto all = ordered_json::array();
    for (const auto& difference : differences) {
      all.push_back({{"name", difference.name},
                     {"what", difference.what},
                     {"elements", difference.elements},
                     {"largest", difference.largest}});
    }
    print_json(
        {{"identical", differences.empty()}, {"a", a.string()}, {"b", b.string()}, {"differences", all}});
  } else {
    for (const auto& difference : differences) fmt::print("{}: {}\n", difference.name, difference.what);
    if (differences.empty()) fmt::print("identical: every tensor and the run state, bit for bit\n");
  }
  return static_cast<int>(differences.empty() ? ExitCode::done : ExitCode::difference);
}

void digest(const CheckpointOptions& options) {
  const auto digests = digest_tensors(chosen(options.path));
  if (options.json) return print_json({{"tensors", digests}, {"all", digest_all(digests)}});
  for (const auto& [name, hex] : digests) fmt::print("{}  {}\n", hex, name);
  fmt::print("{}  all\n", digest_all(digests));
}

CLI::App* add(CLI::App* group, const char* name, const char* meaning, const char* example,
              const std::shared_ptr<CheckpointOptions>& options) {
  auto* command = group->add_subcommand(name, meaning);
  command->add_flag("--json", options->json, "one JSON document");
  command->footer(std::string("Example:\n  smlp checkpoint ") + example);
  return command;
}

}  // namespace

void add_checkpoint_commands(CLI::App& app, int& exit_code) {
  auto* group = app.add_subcommand("checkpoint", "what was saved: listed, verified, compared");
  group->require_subcommand(1);
  group->footer("Example:\n  smlp checkpoint ls runs/demo");
  const auto options = std::make_shared<CheckpointOptions>();
  const auto take_path = [options](CLI::App* command, const char* name, const char* meaning) {
    command->add_option(name, options->path, meaning)->required();
  };

  auto* ls = add(group, "ls", "the checkpoints of a run, oldest first, each read and verified",
                 "ls runs/demo --json", options);
  take_path(ls, "RUN", "a run directory or its checkpoints folder");
  ls->add_flag("--quick", options->quick, "look at manifests and file sizes alone");
  ls->callback([options] { list(*options); });

  auto* check = add(group, "verify", "reads every byte and compares digests; exit code 65 when any is wrong",
                    "verify runs/demo/checkpoints/step-00000050", options);
  take_path(check, "PATH", "one checkpoint, or a run directory: all of its checkpoints");
  check->callback([options] { verify(*options); });

  const char* const either = "a run directory (its newest valid checkpoint) or one checkpoint";
  auto* describe = add(group, "show", "run state and tensors", "show runs/demo", options);
  take_path(describe, "PATH", either);
  describe->callback([options] { show(*options); });

  auto* compare =
      add(group, "diff", "exit code 0 when every tensor and the run state are bit-identical, 1 when not",
          "diff runs/a runs/b/checkpoints/step-00000050", options);
  take_path(compare, "A", either);
  compare->add_option("B", options->other, either)->required();
  compare->callback([options, &exit_code] { exit_code = diff(*options); });

  auto* sums = add(group, "digest", "XXH3-128 of every tensor, whatever number of ranks wrote it",
                   "digest runs/demo", options);
  take_path(sums, "PATH", either);
  sums->callback([options] { digest(*options); });
}

}  // namespace smlp
