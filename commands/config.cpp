#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands/commands.h"
#include "commands/data_check.h"
#include "commands/job_options.h"
#include "commands/print_json.h"
#include "core/error.h"
#include "core/tell.h"

namespace smlp {

namespace {

struct ConfigOptions {
  JobOptions job;
  bool origin = false, json = false;
};

// TOML values of this format are JSON too, but for numbers like 1e-08 and inf.
nlohmann::json json_of(const std::string& toml_value) {
  auto value = nlohmann::json::parse(toml_value, nullptr, false);
  return value.is_discarded() ? nlohmann::json(toml_value) : value;
}

// As far as it can be resolved here: a tokenizer that is not there leaves the vocabulary at 0.
LoadedJob resolved(const JobOptions& options) {
  auto job = load(options);
  check_and_resolve(job);
  try {
    resolve_vocabulary(job, true);
  } catch (const Error& error) {
    tell("note: {}", error.what());
  }
  return job;
}

void show(const ConfigOptions& options) {
  const auto job = resolved(options.job);
  if (options.json) {
    nlohmann::ordered_json values, origins;
    for (const auto& [key, origin] : job.origins) {
      const auto dot = key.find('.');
      auto& place = dot == std::string::npos ? values[key] : values[key.substr(0, dot)][key.substr(dot + 1)];
      place = json_of(value_of(job.config, key));
      origins[key] = origin;
    }
    nlohmann::ordered_json document = {{"file", job.file.string()}, {"fingerprint", fingerprint(job.config)}};
    document["values"] = std::move(values);
    document["origins"] = std::move(origins);
    print_json(document);
    return;
  }
  if (!options.origin) {
    fmt::print("{}", to_toml(job.config));
    return;
  }
  std::size_t widest = 0;
  for (const auto& [key, origin] : job.origins) {
    widest = std::max(widest, key.size() + value_of(job.config, key).size() + 3);
  }
  for (const auto& [key, origin] : job.origins) {
    fmt::print("{:<{}}  # {}\n", fmt::format("{} = {}", key, value_of(job.config, key)), std::min<std::size_t>(widest, 60),
               origin);
  }
}

void check(const JobOptions& options) {
  auto job = load(options);
  check_and_resolve(job);
  resolve_vocabulary(job, true);
  check_data(job);
  fmt::print("{} is sound: {} ranks, {} steps of {} sequences of {} tokens\n", job.file.string(),
             job.config.cluster.ranks, job.config.train.steps, job.config.train.global_batch, job.config.model.context);
}

void list_keys(bool json) {
  if (json) {
    auto all = nlohmann::ordered_json::array();
    for (const auto& key : job_keys()) {
      all.push_back({{"key", key.key}, {"type", key.type}, {"default", json_of(key.fallback)},
                     {"meaning", key.meaning}, {"may_change", key.may_change}});
    }
    print_json(all);
    return;
  }
  std::size_t key_width = 0, value_width = 0;
  for (const auto& key : job_keys()) {
    key_width = std::max(key_width, key.key.size());
    value_width = std::max(value_width, key.fallback.size());
  }
  fmt::print("{:<{}}  {:<8} {:<{}}    {}\n", "key", key_width, "type", "default", value_width, "meaning");
  for (const auto& key : job_keys()) {
    fmt::print("{:<{}}  {:<8} {:<{}}  {} {}\n", key.key, key_width, key.type, key.fallback, value_width,
               key.may_change ? '*' : ' ', key.meaning);
  }
  fmt::print("* may change when a run goes on\n");
}

}  // namespace

void add_config_commands(CLI::App& app) {
  auto* config = app.add_subcommand("config", "job files: resolved, checked, explained");
  config->require_subcommand(1);
  config->footer("Example:\n  smlp config show examples/demo.toml --origin");
  const auto options = std::make_shared<ConfigOptions>();

  auto* show_command = config->add_subcommand("show", "every key with its resolved value");
  add_job_options(*show_command, options->job);
  show_command->add_flag("--origin", options->origin, "and where the value came from");
  show_command->add_flag("--json", options->json, "one JSON document: values and origins");
  show_command->footer("Example:\n  smlp config show examples/demo.toml --set train.steps=800 --origin");
  show_command->callback([options] { show(*options); });

  auto* check_command = config->add_subcommand("check", "what `smlp run` would refuse, data included");
  add_job_options(*check_command, options->job);
  check_command->footer("But for what hangs on the place: whether an allocation is there for cluster.launcher, and an address for\n"
                        "metrics.listen, `smlp run` finds out.\n\n"
                        "Example:\n  smlp config check examples/demo.toml");
  check_command->callback([options] { check(options->job); });

  auto* keys_command = config->add_subcommand("keys", "every key with type, default and meaning");
  keys_command->add_flag("--json", options->json, "one JSON document");
  keys_command->footer("Example:\n  smlp config keys");
  keys_command->callback([options] { list_keys(options->json); });
}

}  // namespace smlp
