// Scratch memory of one micro-batch: taken from front to back, given back all at once. Owned by the Engine,
// passed down in Context. Grows in the first step to what the model needs and allocates nothing after that.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/backend.h"

namespace smlp {

class Arena {
  struct Mark {
    std::size_t block = 0;    // the block in use
    std::int64_t used = 0;    // bytes of it
    std::int64_t before = 0;  // bytes used in the blocks before it
  };

 public:
  explicit Arena(Backend& backend) : backend_(backend) {}
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  TensorView take(Shape shape, DType type);  // contents undefined
  // Before anything is taken: a block that so many bytes fit into. What is wanted beyond it is taken in sixteenths of it,
  // which stay: there is no room for half as much again where a device's memory was counted.
  void reserve(std::int64_t bytes);
  // Everything taken is void; several blocks are merged into one: of the peak size, or of all of them after reserve().
  void reset();

  // Gives back, at the end of a scope, what was taken within it: temporaries of one layer's backward pass.
  class Frame {
   public:
    explicit Frame(Arena& arena) : arena_(arena), mark_(arena.mark_) {}
    ~Frame() { arena_.mark_ = mark_; }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

   private:
    Arena& arena_;
    Mark mark_;
  };

  std::int64_t peak_bytes() const noexcept { return peak_; }
  std::int64_t allocations() const noexcept { return allocations_; }

 private:
  struct Block {
    void* memory;
    std::int64_t bytes;
  };

  Backend& backend_;
  std::vector<Block> blocks_;
  Mark mark_;
  std::int64_t peak_ = 0, allocations_ = 0;
  bool reserved_ = false;
};

}  // namespace smlp
