#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands/commands.h"
#include "commands/compare_picture.h"
#include "commands/plain_text.h"
#include "commands/print_json.h"
#include "commands/usage.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "core/quantities.h"
#include "core/tell.h"
#include "launcher/queue_look.h"

namespace smlp {

namespace {

constexpr std::size_t widest_title = 40;
constexpr const char* unknown = "-";

struct CompareOptions {
  std::vector<std::string> runs;
  double to = 0;  // a perplexity; 0: the best that every run reached
  bool csv = false, json = false;
  std::string svg;
};

struct Compared {
  std::string path, title;
  RunResults results;
};

// By name; runs of the same name by the folders they were named by.
std::vector<Compared> read_all(const std::vector<std::string>& paths) {
  std::vector<Compared> runs;
  std::map<std::string, int> names;
  for (const auto& path : paths) {
    const RunDirectory run{path};
    runs.push_back({path, "", read_results(run)});
    auto& results = runs.back().results;
    if (results.state == "waiting") results.state = QueueLook().status_of(run).state;
    ++names[results.name];
  }
  for (auto& run : runs) {
    run.title = plain_line(names[run.results.name] > 1 ? run.path : run.results.name, widest_title);
  }
  return runs;
}

void warn(const std::string& sentence) { tell("warning: {}", sentence); }

void warn_of_what_differs(const std::vector<Compared>& runs) {
  const auto differs = [&](auto member, const std::string& what) {
    std::map<std::string, std::string> values;  // value: the first run that has it
    for (const auto& run : runs) {
      if (!(run.results.*member).empty()) values.try_emplace(run.results.*member, run.title);
    }
    if (values.size() < 2) return;
    const auto& [a, of_a] = *values.begin();
    const auto& [b, of_b] = *std::next(values.begin());
    warn(fmt::format("the runs have different {}, so their perplexities do not compare: {} has {}, {} has {}", what, of_a,
                     plain_line(a, 100), of_b, plain_line(b, 100)));
  };
  differs(&RunResults::tokenizer, "tokenizers");
  differs(&RunResults::validation, "validation data");
  for (const auto& run : runs) {
    if (run.results.evaluations.empty()) {
      warn(fmt::format("{} was never evaluated: it has no perplexity (data.valid, train.eval_every)", run.title));
    } else if (run.results.state != "done") {
      warn(fmt::format("{} is {} at step {}", run.title, run.results.state, run.results.step));
    }
  }
}

// The worst of what the runs reached at best: each has a time to it.
double common_quality(const std::vector<Compared>& runs) {
  double quality = 0;
  for (const auto& run : runs) {
    if (const auto* best = run.results.best()) quality = std::max(quality, best->perplexity());
  }
  return quality;
}

std::string large_number(std::optional<std::int64_t> count) {
  return count ? count_text(static_cast<double>(*count)) : unknown;
}

std::string with_digits(std::optional<double> value, int digits) {
  return value ? fmt::format("{:.{}f}", *value, digits) : unknown;
}

std::optional<double> perplexity_of(const Evaluated* point) {
  return point ? std::optional(point->perplexity()) : std::nullopt;
}

std::string perplexity_cell(const Evaluated* point) { return point ? perplexity_text(point->perplexity()) : unknown; }

void print_text(const std::vector<Compared>& runs, double quality) {
  const auto to = quality > 0 ? "to " + perplexity_text(quality) : "to -";
  std::vector<std::vector<std::string>> rows = {{"model", "kind", "state", "parameters", "multiply-adds", "steps",
                                                 "perplexity", "best", "at step", to, "steps to it", "tokens/s", "balance",
                                                 "agreement"}};
  for (const auto& [path, title, r] : runs) {
    const auto *best = r.best(), *reached = quality > 0 ? r.first_at(quality) : nullptr;
    rows.push_back({title, r.kind.empty() ? unknown : plain_line(r.kind, 30), r.state, large_number(r.parameters),
                    large_number(r.forward_macs), fmt::format("{}", r.step), perplexity_cell(r.last()),
                    perplexity_cell(best), best ? fmt::format("{}", best->step) : unknown,
                    reached ? duration_text(reached->seconds) : unknown,
                    reached ? fmt::format("{}", reached->step) : unknown, with_digits(r.tokens_per_second, 0),
                    with_digits(r.balance, 2),
                    r.routing_agreement ? fmt::format("{:.0f} %", 100 * *r.routing_agreement) : unknown});
  }
  fmt::print("{}", table_text(rows, 3));
  fmt::print("multiply-adds: of a token, forward, as papers count; to: training time to that validation perplexity;\n"
             "balance: tokens of the fullest expert over the mean, over all steps; agreement: held-out tokens that go to the\n"
             "experts that training would send them to, at the last evaluation\n");
}

void print_csv(const std::vector<Compared>& runs, double quality) {
  fmt::print("run,name,kind,state,parameters,non_expert_parameters,expert_parameters,experts,forward_macs_per_token,"
             "step,steps,step_tokens,ranks,training_seconds,perplexity,best_perplexity,best_step,quality,"
             "seconds_to_quality,steps_to_quality,tokens_per_second,expert_balance,dropped_share,routing_agreement,"
             "restarts\n");
  const auto cell = [](const auto& value) { return value ? fmt::format("{}", *value) : std::string(); };
  for (const auto& [path, title, r] : runs) {
    const auto *best = r.best(), *reached = quality > 0 ? r.first_at(quality) : nullptr;
    fmt::print("{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n", csv_field(path),
               csv_field(r.name), csv_field(r.kind), r.state, cell(r.parameters), cell(r.non_expert), cell(r.expert),
               cell(r.experts), cell(r.forward_macs), r.step, cell(r.steps), cell(r.step_tokens), cell(r.ranks), r.seconds,
               cell(perplexity_of(r.last())), cell(perplexity_of(best)), best ? fmt::format("{}", best->step) : "",
               quality > 0 ? fmt::format("{}", quality) : "", reached ? fmt::format("{}", reached->seconds) : "",
               reached ? fmt::format("{}", reached->step) : "", cell(r.tokens_per_second), cell(r.balance),
               cell(r.dropped_share), cell(r.routing_agreement), r.restarts);
  }
}

void print_as_json(const std::vector<Compared>& runs, double quality) {
  nlohmann::json document = {{"quality", quality > 0 ? nlohmann::json(quality) : nlohmann::json()},
                             {"runs", nlohmann::json::array()}};
  for (const auto& [path, title, r] : runs) {
    auto facts = to_json(r);
    const auto* reached = quality > 0 ? r.first_at(quality) : nullptr;
    facts["run"] = path;
    facts["seconds_to_quality"] = reached ? nlohmann::json(reached->seconds) : nlohmann::json();
    facts["steps_to_quality"] = reached ? nlohmann::json(reached->step) : nlohmann::json();
    document["runs"].push_back(std::move(facts));
  }
  print_json(document);
}

void compare(const CompareOptions& options) {
  const auto runs = read_all(options.runs);
  warn_of_what_differs(runs);
  const double quality = options.to > 0 ? options.to : common_quality(runs);
  if (options.json) print_as_json(runs, quality);
  else if (options.csv) print_csv(runs, quality);
  else print_text(runs, quality);
  if (options.svg.empty()) return;
  std::vector<Curve> curves;
  for (const auto& run : runs) curves.push_back({run.title, run.results.evaluations});
  write_atomically(options.svg, draw_curves(curves));
}

}  // namespace

void add_compare_command(CLI::App& app) {
  const auto options = std::make_shared<CompareOptions>();
  auto* command = app.add_subcommand("compare", "runs side by side: size, perplexity, time to a quality, speed, balance");
  command->add_option("RUN", options->runs, "run directories, alive or dead")->required()->type_name("RUN...");
  command
      ->add_option("--to", options->to,
                   "time and steps to this validation perplexity; left out: the best that all reached")
      ->check(number_within(1, 1e12))
      ->type_name("PERPLEXITY");
  auto* csv = command->add_flag("--csv", options->csv, "one line a run, for other programs");
  command->add_flag("--json", options->json, "one JSON document, every evaluation in it")->excludes(csv);
  command->add_option("--svg", options->svg, "a picture: perplexity over steps and over time, a line a run")
      ->check(not_empty())
      ->type_name("FILE");
  command->footer("Times are of training: evaluations, pauses and steps that were done again are left out.\n\n"
                  "Example:\n  smlp compare runs/gmlp runs/smlp --to 40 --svg comparison.svg");
  command->callback([options] { compare(*options); });
}

}  // namespace smlp
