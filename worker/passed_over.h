// Training data that a run leaves out since a spike of its loss: ranges of sequences, by their number in the run's
// order. Kept in RUN/passed_over.json (a rewind goes back behind every checkpoint that could have known of it), and
// in each later checkpoint's run state. Ranges are sorted and don't touch. A plain value.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace smlp {

class PassedOver {
 public:
  // Error(bad_data) for a text that is not what text() writes: a run must not guess which data it has seen.
  static PassedOver parse(const std::string& text, const std::string& file);
  std::string text() const;  // JSON

  void add(std::int64_t from, std::int64_t to);
  void add(std::span<const std::int64_t> flat);   // from, to, from, to, ...
  std::vector<std::int64_t> flat() const;

  // Where a step of `count` sequences may begin, at `position` or behind it.
  std::int64_t next(std::int64_t position, std::int64_t count) const;
  // The other way: where the last `count` sequences before `position` begin that are not passed over yet.
  std::int64_t back(std::int64_t position, std::int64_t count) const;
  std::int64_t before(std::int64_t position) const;  // sequences passed over by then

  std::vector<std::int64_t> spikes;  // the steps of the rewinds, in the order they happened

 private:
  struct Range {
    std::int64_t from, to;
  };
  std::vector<Range> ranges_;
};

}  // namespace smlp
