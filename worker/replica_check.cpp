#include "worker/replica_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <vector>

#include "core/error.h"
#include "core/host_name.h"
#include "worker/texts.h"

namespace smlp {

namespace {

constexpr std::int64_t chunk_bytes = 1 << 18;  // stays in the cache between the copy and the digest
constexpr std::size_t most_named = 4;

bool held_by_all(const Piece& piece) { return piece.local.size() == piece.global_shape.size(); }

class Hasher {
 public:
  Hasher() : state_(XXH3_createState()), buffer_(static_cast<std::size_t>(chunk_bytes)) {
    expect(state_ != nullptr, "no memory for a digest");
  }
  ~Hasher() { XXH3_freeState(state_); }
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  std::uint64_t of(Backend& backend, const TensorView& view) {
    XXH3_64bits_reset(state_);
    const auto size = static_cast<std::int64_t>(size_of(view.dtype)), step = chunk_bytes / size;
    for (std::int64_t first = 0; first < view.size(); first += step) {
      const auto count = std::min(step, view.size() - first);
      const TensorView part(static_cast<std::byte*>(view.data) + first * size, {count}, view.dtype);
      backend.download(part, buffer_.data());
      XXH3_64bits_update(state_, buffer_.data(), static_cast<std::size_t>(count * size));
    }
    return XXH3_64bits_digest(state_);
  }

 private:
  XXH3_state_t* state_;
  std::vector<std::byte> buffer_;
};

// Halves are exact as doubles; the maximum of a number and of its negative agree where all ranks have the same.
std::array<double, 4> comparable(std::uint64_t hash) {
  const auto high = static_cast<double>(hash >> 32), low = static_cast<double>(hash & 0xffffffffU);
  return {high, low, -high, -low};
}
bool all_same(std::span<const double> maxima) { return maxima[0] == -maxima[2] && maxima[1] == -maxima[3]; }

std::vector<std::byte> packed(const std::vector<std::uint64_t>& hashes) {
  const auto host = host_name();
  const auto bytes = std::as_bytes(std::span(hashes));
  std::vector<std::byte> all(bytes.begin(), bytes.end());
  const auto name = std::as_bytes(std::span(host));
  all.insert(all.end(), name.begin(), name.end());
  return all;
}

struct Copies {
  std::map<std::uint64_t, std::vector<std::size_t>> ranks;  // by what they hold
  std::size_t holders = 0;
};

std::string tell(const std::string& tensor, const Copies& copies, const std::vector<std::string>& hosts) {
  const auto by_count = [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); };
  const auto most = std::max_element(copies.ranks.begin(), copies.ranks.end(), by_count);
  const bool majority = most->second.size() * 2 > copies.holders;
  std::vector<std::string> odd;
  for (const auto& [hash, ranks] : copies.ranks) {
    if (majority && hash == most->first) continue;
    for (const auto rank : ranks) odd.push_back(fmt::format("{} ({})", rank, hosts[rank]));
  }
  return majority ? fmt::format("rank {} holds another '{}' than the {} that agree", fmt::join(odd, " and "), tensor,
                                most->second.size())
                  : fmt::format("ranks {} hold different '{}', and which is right can't be told",
                                fmt::join(odd, " and "), tensor);
}

// On rank 0, of what each rank sent: digests of its pieces, then its host's name.
std::string explain(const std::vector<std::vector<std::byte>>& all, std::span<const Piece> pieces, int expert_ranks) {
  const std::size_t bytes = pieces.size() * sizeof(std::uint64_t);
  std::vector<std::string> hosts, sentences;
  std::vector<std::vector<std::uint64_t>> hashes(all.size(), std::vector<std::uint64_t>(pieces.size()));
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    expect(all[rank].size() >= bytes, "replica check: ranks have different lists of tensors");
    std::memcpy(hashes[rank].data(), all[rank].data(), bytes);
    hosts.emplace_back(reinterpret_cast<const char*>(all[rank].data()) + bytes, all[rank].size() - bytes);
  }
  std::size_t different = 0;
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    if (pieces[p].alone) continue;
    std::map<std::size_t, Copies> groups;  // by slice: rank r holds that of r % expert_ranks
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      auto& copies = groups[held_by_all(pieces[p]) ? 0 : rank % static_cast<std::size_t>(expert_ranks)];
      copies.ranks[hashes[rank][p]].push_back(rank);
      ++copies.holders;
    }
    for (const auto& [slice, copies] : groups) {
      if (copies.ranks.size() < 2) continue;
      if (++different <= most_named) sentences.push_back(tell(pieces[p].name, copies, hosts));
    }
  }
  if (different > most_named) sentences.push_back(fmt::format("{} more tensors differ", different - most_named));
  return fmt::format("{}", fmt::join(sentences, "; "));
}

}  // namespace

std::string compare_replicas(Backend& backend, ProcessGrid& grid, std::span<const Piece> pieces,
                             const std::function<void()>& between) {
  auto& world = *grid.world;
  if (world.size() == 1) return "";
  const bool slices_have_copies = grid.replicas->size() > 1;
  Hasher hasher;
  std::vector<std::uint64_t> hashes, of_all, of_slices;
  for (const auto& piece : pieces) {
    const bool shared = !piece.alone && (held_by_all(piece) || slices_have_copies);
    hashes.push_back(shared ? hasher.of(backend, piece.local) : 0);
    if (shared) (held_by_all(piece) ? of_all : of_slices).push_back(hashes.back());
    between();
  }
  const auto together = [](const std::vector<std::uint64_t>& list) {
    return comparable(XXH3_64bits(list.data(), list.size() * sizeof(std::uint64_t)));
  };
  auto slices = together(of_slices);
  if (slices_have_copies) grid.replicas->all_reduce_host(slices, Reduce::max);
  const auto mine = together(of_all);
  std::array<double, 5> sums = {mine[0], mine[1], mine[2], mine[3], all_same(slices) ? 0.0 : 1.0};
  world.all_reduce_host(sums, Reduce::max);
  if (all_same(sums) && sums[4] == 0) return "";

  const auto all = world.gather_bytes(packed(hashes), 0);
  return broadcast_text(world, world.rank() == 0 ? explain(all, pieces, grid.experts->size()) : "");
}

}  // namespace smlp
