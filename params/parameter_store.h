// The one list of trainable tensors, and of the tables beside them. Layers add to it while they are built; seal() lays it
// out in a few flat segments; the optimiser, gradient sync, checkpoint and counters only ever walk it. Owned by the Engine,
// outlives the layers, which hold references into it.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "tensor/backend.h"

namespace smlp {

// Who holds a copy of a parameter decides who sums its gradient: `replicated` - every rank, summed over the
// world; `expert` - one slice a rank of an expert group, summed over the holders of that slice.
enum class Placement : std::uint8_t { replicated, expert };

// Every first value is a function of (seed, name, index in the whole tensor), not of the rank that makes it.
struct Initial {
  enum class Kind : std::uint8_t { constant, uniform, normal, orthonormal_rows } kind = Kind::constant;
  double scale = 0;  // the constant; U(-scale, scale); N(0, scale²); rows of length `scale`

  static Initial zeros() { return {Kind::constant, 0}; }
  static Initial ones() { return {Kind::constant, 1}; }
  static Initial uniform(double bound) { return {Kind::uniform, bound}; }
  static Initial normal(double deviation) { return {Kind::normal, deviation}; }
  static Initial orthonormal_rows(double length) { return {Kind::orthonormal_rows, length}; }
  static Initial xavier(std::int64_t in, std::int64_t out);  // U(±sqrt(6 / (in + out)))
};

struct ParameterSpec {
  std::string name;  // "blocks.3.tmoe.experts.in.weight": unique, stable, the checkpoint key
  Shape shape;       // of the local slice
  Initial initial;
  bool decay = true;  // AdamW's weight decay applies
  Placement placement = Placement::replicated;
  std::int64_t shard = 0, shards = 1;  // slice `shard` of `shards` along dimension 0
  bool lower_triangle = false;         // only the lower triangle of the last two dimensions is ever read
};

struct Parameter : ParameterSpec {
  explicit Parameter(ParameterSpec spec) : ParameterSpec(std::move(spec)) {}
  TensorView value, grad;   // views into a segment; valid after seal()
  std::size_t segment = 0;  // where: segments()[segment], from element `offset`
  std::int64_t offset = 0;
  Shape global_shape() const;  // dimension 0 times shards
};

// Integers that a model needs and no gradient reaches: replicated, in the checkpoint beside the weights.
struct Table {
  std::string name;
  std::vector<std::int32_t> values;  // as the job makes them, or move_bias() left them; empty: a checkpoint brings them
  TensorView view;                   // i32 [size]; valid after seal()
  bool moves = false;                // training changes it; else it is what the job makes of it
};

// A table of one number an expert: +1 for each that took less than the mean of `tokens`, -1 for each that took more.
void move_bias(Backend& backend, Table& bias, std::span<const double> tokens);

// A run of memory that everyone treats alike: one all-reduce, one AdamW, one norm.
struct Segment {
  Placement placement;
  bool decay;
  TensorView value, grad;  // flat; padding between members is zero and stays zero
  std::vector<Parameter*> members;
};

class ParameterStore {
 public:
  ParameterStore() = default;
  ~ParameterStore();
  ParameterStore(const ParameterStore&) = delete;
  ParameterStore& operator=(const ParameterStore&) = delete;

  // In forward order, the same on every rank. The reference stays valid. Throws after seal() or on a name
  // twice.
  Parameter& add(ParameterSpec spec);
  // `values`: one for each of `size` entries, or none where a checkpoint follows.
  Table& add_table(std::string name, std::int64_t size, std::vector<std::int32_t> values);

  // Lays out, allocates, writes first values. Gradients are f32 where values are bf16 or f16, else as values.
  // Without initialise the values are undefined (a checkpoint follows); with it every table must have some. Members are aligned to
  // 64 elements, and so that what lies between two can be cut into `parts` of equal size, each aligned to 8.
  void seal(Backend& backend, DType value_type, std::uint64_t seed, bool initialise = true, std::int64_t parts = 1);
  // Of elements that end a member: where the next one begins.
  std::int64_t aligned(std::int64_t elements) const { return (elements + alignment_ - 1) / alignment_ * alignment_; }
  void zero_grad(Backend& backend);

  std::vector<Segment>& segments() { return segments_; }
  const std::vector<Segment>& segments() const { return segments_; }
  std::deque<Parameter>& parameters() { return list_; }
  const std::deque<Parameter>& parameters() const { return list_; }
  Parameter& find(const std::string& name);
  const std::deque<Table>& tables() const { return tables_; }

  std::int64_t count_global() const;  // elements of the whole model
  std::int64_t count_global(Placement placement) const;

 private:
  std::deque<Parameter> list_;
  std::unordered_set<std::string> names_;  // of list_
  std::deque<Table> tables_;
  std::vector<Segment> segments_;
  std::vector<void*> blocks_;
  Backend* backend_ = nullptr;
  std::int64_t alignment_ = 1;
};

}  // namespace smlp
