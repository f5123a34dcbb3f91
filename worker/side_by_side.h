// Work that all ranks do by themselves, each at the pace of its own disk: whoever is done waits for the others in small
// collectives, one a second at most, so that nobody is taken for hung because another reads longer.
#pragma once

#include <functional>
#include <utility>

#include "comm/communicator.h"
#include "worker/stopwatch.h"

namespace smlp {

class SideBySide {
 public:
  // `mark`: called by each between(), for whoever watches this rank.
  explicit SideBySide(Communicator& world, std::function<void()> mark = [] {}) : world_(world), mark_(std::move(mark)) {}

  void between();  // often while there is work
  void finish();   // once: when all ranks are there, they go on. A rank that throws instead ends the attempt

 private:
  bool others_work(bool i_do);

  Communicator& world_;
  std::function<void()> mark_;
  Stopwatch since_;
};

}  // namespace smlp
