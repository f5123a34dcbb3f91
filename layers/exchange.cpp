#include "layers/exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace smlp {

ExpertExchange::ExpertExchange(Communicator& ranks, std::int64_t experts)
    : ranks_(ranks), members_(ranks.size()), experts_(experts), local_experts_(experts / members_) {
  if (experts % members_ != 0) {
    throw Error(ExitCode::configuration,
                fmt::format("{} experts cannot be spread evenly over a group of {} ranks; choose another "
                            "model.experts or cluster.expert_ranks",
                            experts, members_));
  }
}

void ExpertExchange::begin(const Context& c) {
  length_ = c.length;
  sequences_.assign(static_cast<std::size_t>(members_), c.sequences);
  if (!alone()) {
    const std::size_t members = sequences_.size();
    mine_.resize(2 * members);
    all_.resize(2 * members);
    for (std::size_t p = 0; p < members; ++p) {
      mine_[2 * p] = c.sequences;
      mine_[2 * p + 1] = c.length;
    }
    const PhaseScope scope(c.backend.phase_clock(), Phase::exchange);
    ranks_.all_to_all_host(mine_, all_);
    for (std::size_t p = 0; p < members; ++p) {
      sequences_[p] = all_[2 * p];
      if (c.sequences == 0) length_ = std::max(length_, all_[2 * p] > 0 ? all_[2 * p + 1] : 0);
    }
    for (std::size_t p = 0; p < members; ++p) {
      expect(sequences_[p] == 0 || all_[2 * p + 1] == length_, [&] {
        return fmt::format("ranks of one expert group brought sequences of {} and of {} tokens to the same call", length_,
                           all_[2 * p + 1]);
      });
    }
  }
  all_sequences_ = std::accumulate(sequences_.begin(), sequences_.end(), std::int64_t{0});
}

void ExpertExchange::all_to_all(Context& c, TensorView in, std::span<const std::int64_t> rows_to,
                                TensorView out, std::span<const std::int64_t> rows_from) {
  const PhaseScope scope(c.backend.phase_clock(), Phase::exchange);
  ranks_.after(c.backend);
  ranks_.all_to_all(in, rows_to, out, rows_from);
  ranks_.before(c.backend);
}

void ExpertExchange::share_counts(const Context& c, std::span<const std::int64_t> of_experts,
                                  std::span<std::int64_t> from) {
  const PhaseScope scope(c.backend.phase_clock(), Phase::exchange);
  ranks_.all_to_all_host(of_experts, from);
}

ParameterSpec ExpertExchange::slice_of(ParameterSpec of_expert) const {
  of_expert.shape = of_expert.shape.stacked(local_experts_);
  of_expert.placement = Placement::expert;
  of_expert.shard = ranks_.rank();
  of_expert.shards = members_;
  return of_expert;
}

void TokenExchange::prepare(const Context& c, std::span<const std::int64_t> rows_of_expert,
                            std::optional<std::int64_t> slots_of_group, std::int64_t group_sequences) {
  const auto local = static_cast<std::size_t>(exchange_.local_experts());
  const auto members = static_cast<std::size_t>(exchange_.members());
  arrived_to_grouped_.clear();
  grouped_to_arrived_.clear();
  if (exchange_.alone()) {
    rows_of_local_.assign(rows_of_expert.begin(), rows_of_expert.end());
    expert_rows_ = std::accumulate(rows_of_local_.begin(), rows_of_local_.end(), std::int64_t{0});
    return;
  }
  std::vector<std::int64_t>& from = from_;
  from.clear();
  if (slots_of_group) {
    for (const std::int64_t sequences : exchange_.sequences()) {
      from.insert(from.end(), local, sequences / group_sequences * *slots_of_group);
    }
  } else {
    from.resize(rows_of_expert.size());
    exchange_.share_counts(c, rows_of_expert, from);
  }
  rows_to_.assign(members, 0);
  rows_from_.assign(members, 0);
  rows_of_local_.assign(local, 0);
  for (std::size_t p = 0; p < members; ++p) {
    for (std::size_t l = 0; l < local; ++l) {
      rows_to_[p] += rows_of_expert[p * local + l];
      rows_from_[p] += from[p * local + l];
      rows_of_local_[l] += from[p * local + l];
    }
  }
  expert_rows_ = std::accumulate(rows_from_.begin(), rows_from_.end(), std::int64_t{0});
  if (local == 1) return;
  next_.assign(local, 0);
  for (std::size_t l = 1; l < local; ++l) next_[l] = next_[l - 1] + rows_of_local_[l - 1];
  std::int64_t arrived = 0;
  for (std::size_t i = 0; i < from.size(); ++i) {
    if (from[i] > 0) {
      arrived_to_grouped_.push_back({arrived, next_[i % local], from[i]});
      grouped_to_arrived_.push_back({next_[i % local], arrived, from[i]});
    }
    arrived += from[i];
    next_[i % local] += from[i];
  }
}

void TokenExchange::to_experts(Context& c, TensorView slots, TensorView rows) {
  if (arrived_to_grouped_.empty()) return exchange_.all_to_all(c, slots, rows_to_, rows, rows_from_);
  const Arena::Frame frame(c.scratch);
  const TensorView arrived = c.scratch.take(rows.shape, rows.dtype);
  exchange_.all_to_all(c, slots, rows_to_, arrived, rows_from_);
  c.backend.copy_rows(arrived, rows, arrived_to_grouped_);
}

void TokenExchange::to_tokens(Context& c, TensorView rows, TensorView slots) {
  if (grouped_to_arrived_.empty()) return exchange_.all_to_all(c, rows, rows_from_, slots, rows_to_);
  const Arena::Frame frame(c.scratch);
  const TensorView arrived = c.scratch.take(rows.shape, rows.dtype);
  c.backend.copy_rows(rows, arrived, grouped_to_arrived_);
  exchange_.all_to_all(c, arrived, rows_from_, slots, rows_to_);
}

std::span<const std::int32_t> TokenExchange::places(Context& c, TensorView token_of_slot) {
  places_.resize(static_cast<std::size_t>(expert_rows_));
  if (exchange_.alone()) {
    c.backend.download(token_of_slot, places_.data());
    return places_;
  }
  const Arena::Frame frame(c.scratch);
  const TensorView rows = c.scratch.take({expert_rows_, 1}, DType::i32);
  to_experts(c, token_of_slot.reshaped({token_of_slot.size(), 1}), rows);
  c.backend.download(rows, places_.data());
  auto place = places_.begin();
  const std::size_t local = rows_of_local_.size(), members = from_.size() / local;
  for (std::size_t l = 0; l < local; ++l) {
    std::int64_t first = 0;  // place of the source's first row
    for (std::size_t p = 0; p < members; ++p) {
      for (std::int64_t i = 0; i < from_[p * local + l]; ++i, ++place) {
        if (*place >= 0) *place += static_cast<std::int32_t>(first);
      }
      first += exchange_.sequences()[p] * exchange_.length();
    }
  }
  return places_;
}

void ColumnExchange::count_rows(std::int64_t rows, std::int64_t length) {
  mine_.assign(static_cast<std::size_t>(exchange_.members()), rows);
  of_members_.clear();
  for (const std::int64_t sequences : exchange_.sequences()) of_members_.push_back(sequences * length);
}

TensorView ColumnExchange::take_chunk(Context& c, std::int64_t length, DType type) const {
  return c.scratch.take({exchange_.all_sequences() * length, chunk_width_}, type);
}

void ColumnExchange::to_experts(Context& c, std::int64_t length, TensorView columns, TensorView chunk) {
  const Arena::Frame frame(c.scratch);
  const std::int64_t rows = columns.rows(), members = exchange_.members();
  const TensorView packed = c.scratch.take({members * rows, chunk_width_}, columns.dtype);
  for (std::int64_t p = 0; p < members && rows > 0; ++p) {
    c.backend.copy(columns.column_range(p * chunk_width_, chunk_width_), packed.row_range(p * rows, rows));
  }
  count_rows(rows, length);
  exchange_.all_to_all(c, packed, mine_, chunk, of_members_);
}

void ColumnExchange::to_tokens(Context& c, std::int64_t length, TensorView chunk, TensorView columns) {
  const Arena::Frame frame(c.scratch);
  const std::int64_t rows = columns.rows(), members = exchange_.members();
  const TensorView packed = c.scratch.take({members * rows, chunk_width_}, columns.dtype);
  count_rows(rows, length);
  exchange_.all_to_all(c, chunk, of_members_, packed, mine_);
  for (std::int64_t p = 0; p < members && rows > 0; ++p) {
    c.backend.copy(packed.row_range(p * rows, rows), columns.column_range(p * chunk_width_, chunk_width_));
  }
}

}  // namespace smlp
