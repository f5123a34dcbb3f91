#include <fmt/format.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/job_file.h"
#include "layers/mixing_counts.h"
#include "worker/commands.h"
#include "worker/paper_tables.h"
#include "worker/plan_json.h"

namespace smlp {

namespace {

// What there is to say of a row: its counts, or why there are none.
struct Ours {
  std::map<Counted, double> counts;
  std::string absent;
};

Ours count_operation(const std::string& name) {
  constexpr std::int64_t context = 1024, width = 1024, hidden = 4096, experts = 32;
  const auto heads = std::atoll(name.substr(name.find(' ') + 1).c_str());
  MixingCounts counts;
  if (name.starts_with("gate")) counts = count_spatial_gate(context, hidden, heads);
  else if (name == "smoe") counts = count_channel_moe(context, width, experts);
  else return {{}, "self-attention is not in this build yet"};
  return {{{Counted::parameters, static_cast<double>(counts.parameters)},
           {Counted::multiply_adds, static_cast<double>(counts.multiply_adds)}},
          ""};
}

Ours count_row(const PaperRow& row) {
  const auto text = paper_job(row.job);
  if (text.empty()) return count_operation(row.job);
  auto job = parse_job(std::string(text), "examples/paper/" + row.job + ".toml");
  try {
    check_and_resolve(job);
  } catch (const Error& error) {
    return {{}, error.what()};
  }
  const auto counts = count_job(job.config);
  const auto real = [](std::int64_t count) { return static_cast<double>(count); };
  return {{{Counted::parameters, real(counts.parameters.total)},
           {Counted::non_expert, real(counts.parameters.non_expert)},
           {Counted::expert, real(counts.parameters.expert)},
           {Counted::multiply_adds, real(counts.forward_macs.paper)}},
          ""};
}

const char* name_of(Counted what) {
  switch (what) {
    case Counted::parameters: return "parameters";
    case Counted::non_expert: return "non-expert parameters";
    case Counted::expert: return "parameters of one expert";
    case Counted::multiply_adds: return "multiply-adds";
  }
  return "";
}
const char* key_of(Counted what) {
  switch (what) {
    case Counted::parameters: return "parameters";
    case Counted::non_expert: return "non_expert";
    case Counted::expert: return "expert";
    case Counted::multiply_adds: return "forward_macs";
  }
  return "";
}

// In the unit that the paper prints it in.
std::string in_unit(Counted what, double value, double like) {
  if (what != Counted::multiply_adds && like >= 1e9) return fmt::format("{:.3f} B", value / 1e9);
  if (like >= 1e11) return fmt::format("{:.4f} T", value / 1e12);
  if (like >= 2e9) return fmt::format("{:.3f} G", value / 1e9);
  return fmt::format("{:.3f} M", value / 1e6);
}

double percent(double ours, double paper) { return 100 * (ours / paper - 1); }

void print_row(const PaperRow& row, const Ours& ours) {
  if (!ours.absent.empty()) {
    fmt::print("  {:<32} not counted: {}\n", row.model, ours.absent);
    return;
  }
  bool first = true;
  for (const auto& [what, value, note] : row.numbers) {
    const double count = ours.counts.at(what);
    fmt::print("  {:<32} {:<26} {:>12} {:>12} {:>+8.2f} %{}{}\n", first ? row.model : "", name_of(what),
               in_unit(what, count, value), in_unit(what, value, value), percent(count, value), *note ? "  " : "", note);
    first = false;
  }
}

nlohmann::json row_json(const PaperRow& row, const Ours& ours) {
  nlohmann::json json = {{"model", row.model}, {"job", row.job}, {"counted", ours.absent.empty()}};
  json["counts"] = nlohmann::json::array();
  if (!ours.absent.empty()) json["reason"] = ours.absent;
  for (const auto& [what, value, note] : row.numbers) {
    nlohmann::json one = {{"what", key_of(what)}, {"paper", value}, {"note", note}};
    one["ours"] = one["difference_percent"] = nullptr;
    if (ours.absent.empty()) {
      one["ours"] = ours.counts.at(what);
      one["difference_percent"] = percent(ours.counts.at(what), value);
    }
    json["counts"].push_back(std::move(one));
  }
  return json;
}

}  // namespace

void paper_plan_command(bool json) {
  nlohmann::json document = {{"tables", nlohmann::json::array()}};
  std::map<std::string, Ours> counted;  // rows share jobs
  for (const auto& table : paper_tables()) {
    nlohmann::json rows = nlohmann::json::array();
    if (!json) {
      fmt::print("Table {}: {}\n", table.number, table.title);
      fmt::print("  {:<32} {:<26} {:>12} {:>12} {:>10}\n", "", "", "ours", "paper", "difference");
    }
    for (const auto& row : table.rows) {
      const auto [ours, fresh] = counted.try_emplace(row.job);
      if (fresh) ours->second = count_row(row);
      if (json) rows.push_back(row_json(row, ours->second));
      else print_row(row, ours->second);
    }
    if (json) {
      document["tables"].push_back({{"table", table.number}, {"title", table.title}, {"rows", rows}});
      document["tables"].back()["contradictions"] = table.contradictions;
      continue;
    }
    for (const auto& sentence : table.contradictions) fmt::print("  ! {}\n", sentence);
    fmt::print("\n");
  }
  if (json) {
    fmt::print("{}\n", document.dump(2));
    return;
  }
  fmt::print("Multiply-adds: forward, two sequences of 1024 tokens, the full square of the causal token mixing, as the\n"
             "paper counts. ! where the paper contradicts itself. Configurations: examples/paper/; docs/paper.md has the\n"
             "choices in them.\n");
}

}  // namespace smlp
