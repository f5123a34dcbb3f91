// The expert group as sparse layers see it: who brings how many sequences to this call, and tokens to where
// their experts live and back. Owned by the Model; layers hold a reference and never ask for a rank.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "layers/layer.h"
#include "params/parameter_store.h"

namespace smlp {

class ExpertExchange {
 public:
  ExpertExchange(Communicator& ranks, std::int64_t experts);

  // Once a forward pass, before any layer: shares sequences and length. Ranks may differ in sequences (none
  // at all included), never in length.
  void begin(const Context& c);

  bool alone() const noexcept { return members_ == 1; }
  std::int64_t members() const noexcept { return members_; }
  std::int64_t local_experts() const noexcept { return local_experts_; }
  std::int64_t length() const noexcept { return length_; }
  std::span<const std::int64_t> sequences() const noexcept { return sequences_; }  // of every member
  std::int64_t all_sequences() const noexcept { return all_sequences_; }

  void all_to_all(Context& c, TensorView in, std::span<const std::int64_t> rows_to, TensorView out,
                  std::span<const std::int64_t> rows_from);
  // One block of local_experts() counts for each member, to and from.
  void share_counts(const Context& c, std::span<const std::int64_t> of_experts, std::span<std::int64_t> from);

  // This rank's slice of a parameter that is stacked over experts: `of_expert` is the shape of one.
  ParameterSpec slice_of(ParameterSpec of_expert) const;

 private:
  Communicator& ranks_;
  std::int64_t members_, experts_, local_experts_;
  std::int64_t length_ = 0, all_sequences_ = 0;
  std::vector<std::int64_t> sequences_, mine_, all_;  // mine_, all_: as begin() shares them
};

// The way of one layer's rows to their experts: slots [expert][..] on the token side, on the other side
// [local expert][source][..], so that all rows of an expert are adjacent.
class TokenExchange {
 public:
  explicit TokenExchange(ExpertExchange& exchange) : exchange_(exchange) {}

  // rows_of_expert: of this rank, all experts. slots_of_group, where it is known: slots an expert gets from a
  // routing group of `group_sequences` sequences; else the counts are exchanged.
  void prepare(const Context& c, std::span<const std::int64_t> rows_of_expert,
               std::optional<std::int64_t> slots_of_group, std::int64_t group_sequences);

  bool direct() const noexcept { return exchange_.alone(); }  // both sides are the same memory
  std::int64_t expert_rows() const noexcept { return expert_rows_; }
  std::span<const std::int64_t> rows_of_local_expert() const noexcept { return rows_of_local_; }

  // Not called when direct().
  void to_experts(Context& c, TensorView slots, TensorView rows);
  void to_tokens(Context& c, TensorView rows, TensorView slots);

  // Of every row on the experts' side, the place of its token among the rows of all members; -1: an empty slot. On the
  // host: waits. Called when direct() too. Good until the next call.
  std::span<const std::int32_t> places(Context& c, TensorView token_of_slot);

 private:
  ExpertExchange& exchange_;
  std::int64_t expert_rows_ = 0;
  std::vector<std::int64_t> from_;  // rows by [source][local expert]
  std::vector<std::int64_t> rows_to_, rows_from_, rows_of_local_, next_;  // next_: where an expert's next rows go
  std::vector<std::int32_t> places_;
  std::vector<RowBlock> arrived_to_grouped_, grouped_to_arrived_;  // empty: the orders are the same
};

// The way of channels to their experts: rows [.., all channels] of this rank's sequences, against [all sequences ·
// length, channels of the experts that live here]. `length` tokens of each sequence are sent.
class ColumnExchange {
 public:
  ColumnExchange(ExpertExchange& exchange, std::int64_t width)
      : exchange_(exchange), chunk_width_(width / exchange.members()) {}

  bool direct() const noexcept { return exchange_.alone(); }
  TensorView take_chunk(Context& c, std::int64_t length, DType type) const;
  // Not called when direct(). Columns: my rows, cut by destination.
  void to_experts(Context& c, std::int64_t length, TensorView columns, TensorView chunk);
  void to_tokens(Context& c, std::int64_t length, TensorView chunk, TensorView columns);

 private:
  void count_rows(std::int64_t rows, std::int64_t length);

  ExpertExchange& exchange_;
  std::int64_t chunk_width_;                    // of all experts that live here
  std::vector<std::int64_t> mine_, of_members_;  // rows of a call: mine, by member; and each member's
};

}  // namespace smlp
