#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "core/clock.h"
#include "core/error.h"
#include "core/host_name.h"
#include "core/json_text.h"
#include "core/statistics.h"
#include "worker/preflight.h"
#include "worker/texts.h"
#include "worker/world.h"

namespace smlp {

namespace {

constexpr unsigned limit_seconds = 60;
constexpr std::int64_t message_bytes = 1 << 20;
constexpr int tries = 4;         // the first one connects
constexpr int most_rounds = 16;  // all pairs of up to 17 ranks; of more ranks a share of them, evenly spread

// Who meets whom in a round of a tournament: everybody has one partner at most, and over all rounds meets everybody
// once. -1: this rank rests.
int partner_in(int round, int rank, int ranks) {
  const int seats = ranks + ranks % 2, last = seats - 1;
  int partner = rank == last ? round : (2 * round - rank + 2 * last) % last;
  if (partner == rank) partner = last;
  return partner < ranks ? partner : -1;
}

struct Meeting {
  double partner = -1, bytes_per_second = 0;
};

class PairExchange {
 public:
  explicit PairExchange(Communicator& world, Backend& backend)
      : world_(world), backend_(backend), memory_(backend.allocate(2 * message_bytes)) {
    backend_.fill(in(), 1);
    backend_.fill(out(), 0);
  }
  ~PairExchange() { backend_.release(memory_); }
  PairExchange(const PairExchange&) = delete;
  PairExchange& operator=(const PairExchange&) = delete;

  Meeting with(int partner) {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(world_.size()), 0);
    if (partner >= 0) rows[static_cast<std::size_t>(partner)] = elements;
    double least = std::numeric_limits<double>::max();
    for (int i = 0; i < tries; ++i) {
      const double began = monotonic_seconds();
      world_.all_to_all(in(), rows, out(), rows);
      if (i > 0) least = std::min(least, monotonic_seconds() - began);
    }
    world_.barrier();
    if (partner < 0) return {};
    return {static_cast<double>(partner), static_cast<double>(message_bytes) / std::max(least, 1e-9)};
  }

 private:
  static constexpr std::int64_t elements = message_bytes / 4;
  TensorView in() { return TensorView(memory_, {elements}, DType::f32); }
  TensorView out() { return TensorView(in().at(elements), {elements}, DType::f32); }

  Communicator& world_;
  Backend& backend_;
  void* memory_;
};

void end_late_pairs(int) {
  constexpr std::string_view words = "smlp: the ranks' exchange did not end in time\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, words.data(), words.size());
  ::_exit(static_cast<int>(ExitCode::io_failed));
}

nlohmann::ordered_json report(const std::vector<std::string>& hosts,
                              const std::vector<std::vector<std::byte>>& meetings) {
  nlohmann::ordered_json document = {{"hosts", hosts}, {"pairs", nlohmann::json::array()}};
  std::vector<double> rates;
  for (std::size_t rank = 0; rank < meetings.size(); ++rank) {
    std::vector<Meeting> of_rank(meetings[rank].size() / sizeof(Meeting));
    if (!of_rank.empty()) std::memcpy(of_rank.data(), meetings[rank].data(), of_rank.size() * sizeof(Meeting));
    for (const auto& meeting : of_rank) {
      if (meeting.partner < static_cast<double>(rank)) continue;  // told by the lower of the two
      document["pairs"].push_back({{"a", rank},
                                   {"b", static_cast<std::int64_t>(meeting.partner)},
                                   {"bytes_per_second", meeting.bytes_per_second}});
      rates.push_back(meeting.bytes_per_second);
    }
  }
  document["median"] = rates.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(upper_median(rates));
  return document;
}

}  // namespace

void preflight_exchange_command() {
  std::signal(SIGALRM, end_late_pairs);
  ::alarm(limit_seconds);
  const auto backend = make_cpu_backend();
  const auto world = join_world(*backend, "auto");
  const int ranks = world->size(), all_rounds = ranks + ranks % 2 - 1;
  const int rounds = ranks == 1 ? 0 : std::min(all_rounds, most_rounds);
  std::vector<Meeting> meetings;
  PairExchange exchange(*world, *backend);
  for (int i = 0; i < rounds; ++i) {
    meetings.push_back(exchange.with(partner_in(i * all_rounds / rounds, world->rank(), ranks)));
  }
  const auto hosts = gather_texts(*world, node_name());
  const auto all = world->gather_bytes(std::as_bytes(std::span(meetings)), 0);
  world->barrier();  // nobody leaves, and takes a message along that is not sent yet, before rank 0 has them all
  ::alarm(0);
  if (world->rank() == 0) fmt::print("{}\n", json_text(report(hosts, all)));
}

}  // namespace smlp
