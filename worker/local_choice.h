// Which save of the node-local tier is whole, from what every rank says that it can read. Plain values, on rank 0.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/local.h"

namespace smlp {

// A shard that some rank can read from its node's folder; ranks of one node name the same file.
struct Holding {
  int holder = 0;
  SaveId save;
  int rank = 0, ranks = 0;  // whose shard it is, of how many
  bool copy = false;
};

struct Reader {
  int holder = 0;
  bool copy = false;
  bool operator==(const Reader&) const = default;
};

class LocalCandidate {
 public:
  SaveId save;
  int ranks = 0;
  std::string fault() const;  // why it is not whole; "" when every shard is somewhere
  // Who reads which shard: its own rank before others, originals before copies, and no rank much more than another.
  // Only of a whole one.
  std::vector<Reader> readers() const;
  void forget(int rank, Reader reader);  // it turned out not to hold

 private:
  friend std::vector<LocalCandidate> candidates_of(const std::vector<Holding>& holdings);
  std::vector<std::vector<Holding>> holders_;  // by shard
  std::string disagreement_;
};

std::vector<LocalCandidate> candidates_of(const std::vector<Holding>& holdings);  // newest first

}  // namespace smlp
