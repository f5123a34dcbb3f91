#include "worker/local_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "core/error.h"

namespace smlp {

std::string LocalCandidate::fault() const {
  if (!disagreement_.empty()) return disagreement_;
  for (std::size_t rank = 0; rank < holders_.size(); ++rank) {
    if (holders_[rank].empty()) return fmt::format("the shard of rank {} is on no node of this attempt", rank);
  }
  return "";
}

std::vector<Reader> LocalCandidate::readers() const {
  expect(fault().empty(), "a local save that is not whole has no readers");
  std::map<int, int> load;
  std::vector<Reader> readers;
  for (std::size_t rank = 0; rank < holders_.size(); ++rank) {
    const auto cost = [&](const Holding& holding) {
      return std::tuple(holding.copy, holding.holder != static_cast<int>(rank), load[holding.holder], holding.holder);
    };
    const auto best = std::ranges::min_element(holders_[rank], {}, cost);
    readers.push_back({best->holder, best->copy});
    ++load[best->holder];
  }
  return readers;
}

void LocalCandidate::forget(int rank, Reader reader) {
  std::erase_if(holders_.at(static_cast<std::size_t>(rank)), [&](const Holding& holding) {
    return Reader{holding.holder, holding.copy} == reader;
  });
}

std::vector<LocalCandidate> candidates_of(const std::vector<Holding>& holdings) {
  std::map<SaveId, LocalCandidate, std::greater<>> found;
  for (const auto& holding : holdings) {
    auto& candidate = found[holding.save];
    candidate.save = holding.save;
    if (candidate.ranks == 0) candidate.ranks = holding.ranks;
    if (candidate.ranks != holding.ranks) {
      candidate.disagreement_ = fmt::format("some of its shards say that it has {} ranks, others {}", candidate.ranks,
                                            holding.ranks);
    }
    candidate.holders_.resize(static_cast<std::size_t>(std::max(candidate.ranks, holding.ranks)));
    candidate.holders_.at(static_cast<std::size_t>(holding.rank)).push_back(holding);
  }
  std::vector<LocalCandidate> candidates;
  for (auto& [save, candidate] : found) candidates.push_back(std::move(candidate));
  return candidates;
}

}  // namespace smlp
