#include "worker/partners.h"

#include <map>

namespace smlp {

Partners partners_of(int rank, std::span<const std::string> hosts) {
  const auto ranks = hosts.size();
  std::map<std::string, std::size_t> numbers;
  std::vector<std::vector<int>> nodes;
  std::vector<std::pair<std::size_t, std::size_t>> places;  // of each rank: node, place on it
  for (std::size_t r = 0; r < ranks; ++r) {
    const auto node = numbers.try_emplace(hosts[r], numbers.size()).first->second;
    if (node == nodes.size()) nodes.emplace_back();
    places.emplace_back(node, nodes[node].size());
    nodes[node].push_back(static_cast<int>(r));
  }
  const auto partner = [&](std::size_t r) {
    if (nodes.size() == 1) return static_cast<int>((r + 1) % ranks);
    const auto& next = nodes[(places[r].first + 1) % nodes.size()];
    return next[places[r].second % next.size()];
  };
  Partners partners;
  if (ranks < 2) return partners;
  partners.to = partner(static_cast<std::size_t>(rank));
  for (std::size_t r = 0; r < ranks; ++r) {
    if (partner(r) == rank) partners.from.push_back(static_cast<int>(r));
  }
  return partners;
}

}  // namespace smlp
