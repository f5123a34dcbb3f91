#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "core/json_lines.h"
#include "core/json_text.h"
#include "core/statistics.h"
#include "launcher/preflight.h"

namespace smlp {

namespace {

// Bytes a second of a node's best link: a good node has one to another good node.
using BestLinks = std::map<std::string, double>;

struct Links {
  BestLinks between, within;
  std::string failure;
};

Links read_links(const std::string& line) {
  Links links;
  const auto document = parse_json(line);
  const auto hosts = document.is_object() ? document.find("hosts") : document.end();
  const auto pairs = document.is_object() ? document.find("pairs") : document.end();
  if (hosts == document.end() || pairs == document.end() || !hosts->is_array() || !pairs->is_array()) {
    links.failure = "the ranks' answer is no report of their exchange";
    return links;
  }
  const auto host_of = [&](const nlohmann::json& pair, const char* key) -> std::string {
    const auto rank = integer_in(pair, key).value_or(-1);
    if (rank < 0 || rank >= static_cast<std::int64_t>(hosts->size())) return "";
    const auto& host = (*hosts)[static_cast<std::size_t>(rank)];
    return host.is_string() ? host.get<std::string>() : "";
  };
  for (const auto& pair : *pairs) {
    const auto a = host_of(pair, "a"), b = host_of(pair, "b");
    const double rate = number_in(pair, "bytes_per_second").value_or(-1);
    if (a.empty() || b.empty() || !std::isfinite(rate) || rate <= 0) {
      links.failure = fmt::format("the report of the exchange has a pair that makes no sense: {}", json_text(pair));
      return links;
    }
    auto& best = a == b ? links.within : links.between;
    for (const auto& host : {a, b}) best[host] = std::max(best[host], rate);
  }
  return links;
}

void judge_links(ExchangeVerdict& verdict, const BestLinks& best, const char* words, double share) {
  if (best.size() < 3) return;
  std::vector<double> rates;
  for (const auto& [host, rate] : best) rates.push_back(rate);
  const double median = upper_median(std::move(rates));
  for (const auto& [host, rate] : best) {
    if (rate >= share * median) continue;
    if (std::find(verdict.slow_nodes.begin(), verdict.slow_nodes.end(), host) == verdict.slow_nodes.end()) {
      verdict.slow_nodes.push_back(host);
    }
    verdict.sentences.push_back(fmt::format("node {} exchanges slowly {}: {:.3g} MB/s at best, the median of {} nodes is "
                                            "{:.3g} MB/s (cluster.slow_node_share = {})",
                                            host, words, rate * 1e-6, best.size(), median * 1e-6, share));
  }
}

}  // namespace

ExchangeVerdict judge_exchange(const std::string& line, const JobConfig& job) {
  ExchangeVerdict verdict;
  const auto links = read_links(line);
  verdict.failure = links.failure;
  if (!links.failure.empty()) return verdict;
  judge_links(verdict, links.between, "with other nodes", job.cluster.slow_node_share);
  judge_links(verdict, links.within, "between its own ranks", job.cluster.slow_node_share);
  return verdict;
}

}  // namespace smlp
