#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "core/job_file.h"
#include "core/json_text.h"
#include "layers/mixing_counts.h"
#include "worker/commands.h"
#include "worker/paper_tables.h"
#include "worker/plan_json.h"

namespace smlp {

namespace {

using Counts = std::map<Counted, double>;

Counts count_operation(const std::string& name) {
  constexpr std::int64_t context = 1024, width = 1024, hidden = 4096, experts = 32;
  const auto heads = std::atoll(name.substr(name.find(' ') + 1).c_str());
  const auto counts = name.starts_with("gate")        ? count_spatial_gate(context, hidden, heads)
                      : name.starts_with("attention") ? count_self_attention(context, width, heads)
                                                      : count_channel_moe(context, width, experts);
  return {{Counted::parameters, static_cast<double>(counts.parameters)},
          {Counted::multiply_adds, static_cast<double>(counts.multiply_adds)}};
}

Counts count_row(const PaperRow& row) {
  const auto text = paper_job(row.job);
  if (text.empty()) return count_operation(row.job);
  auto job = parse_job(std::string(text), "examples/paper/" + row.job + ".toml");
  check_and_resolve(job);
  const auto counts = count_job(job.config);
  const auto real = [](std::int64_t count) { return static_cast<double>(count); };
  return {{Counted::parameters, real(counts.parameters.total)},
          {Counted::non_expert, real(counts.parameters.non_expert)},
          {Counted::expert, real(counts.parameters.expert)},
          {Counted::multiply_adds, real(counts.forward_macs.paper)}};
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

void print_row(const PaperRow& row, const Counts& ours) {
  bool first = true;
  for (const auto& [what, value, note] : row.numbers) {
    const double count = ours.at(what);
    fmt::print("  {:<32} {:<26} {:>12} {:>12} {:>+8.2f} %{}{}\n", first ? row.model : "", name_of(what),
               in_unit(what, count, value), in_unit(what, value, value), percent(count, value), *note ? "  " : "", note);
    first = false;
  }
}

nlohmann::json row_json(const PaperRow& row, const Counts& ours) {
  nlohmann::json json = {{"model", row.model}, {"job", row.job}};
  for (const auto& [what, value, note] : row.numbers) {
    json["counts"].push_back({{"what", key_of(what)},
                              {"ours", ours.at(what)},
                              {"paper", value},
                              {"difference_percent", percent(ours.at(what), value)},
                              {"note", note}});
  }
  return json;
}

}  // namespace

void paper_plan_command(bool json) {
  nlohmann::json document = {{"tables", nlohmann::json::array()}};
  std::map<std::string, Counts> counted;  // rows share jobs
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
    fmt::print("{}\n", json_text(document, 2));
    return;
  }
  fmt::print("Multiply-adds: forward, two sequences of 1024 tokens, the full square of the causal token mixing, as the\n"
             "paper counts. ! where the paper contradicts itself. Configurations: examples/paper/; docs/paper.md has the\n"
             "choices in them.\n");
}

}  // namespace smlp
