// Work that is asked for again and again with the same shapes, for Backend::repeat(). Whoever asks for it owns the
// recording, one for each such work, and gives it up before its backend.
//
// A recording holds calls with all their arguments: addresses, sizes, scalars. So the work
//  * makes the same calls with the same arguments each time, as long as `baked_in` is the same: whatever an argument could
//    depend on stands there, or lies in the device's memory, where the calls read it anew;
//  * reads nothing of the device on the host, hands over no memory of the host, talks to no other rank;
//  * leaves the host as it found it, so that it may be done again from its beginning, and left out where it was recorded.
// Memory need not stand in `baked_in`: a recording is thrown away when any has been allocated or released since.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace smlp {

struct WorkPart {
  std::function<void()> first;  // of the host alone, each time, and never recorded: a clock enters its next phase
  std::function<void()> calls;
  void operator()() const {
    first();
    calls();
  }
};

struct Recording {
  class Kept {  // by the device
   public:
    virtual ~Kept() = default;
  };
  std::vector<std::unique_ptr<Kept>> kept;  // by part; none: the work is done call by call
  std::int64_t repeats = 0;    // how often the device was handed what it kept
  std::string refusal;         // why it could not be kept, and will not be tried again; empty: it can, or nobody has tried

  // Of the backend: what the last work was done with, and the state of its memory then (-1: it was still changing).
  std::vector<std::int64_t> baked_in;
  std::int64_t memory = -1;
};

}  // namespace smlp
