#include "tests/cuda_emulation/emulator.h"

#include <cuda_runtime.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"

// Of the address sanitizer, where the program has it.
extern "C" void __asan_unpoison_memory_region(const volatile void*, std::size_t) __attribute__((weak));

// Saves the caller's registers and stack in *from and goes on where `to` was left.
extern "C" void smlp_switch_stack(void** from, void* to);
asm(R"(
.text
.globl smlp_switch_stack
smlp_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

namespace smlp::emulation {

namespace {

// No power of two: stacks that lie on each other in the caches would throw each other out at every switch.
constexpr std::size_t stack_bytes = 128 * 1024 + 4096 + 320;

enum class State { ready, at_barrier, in_warp, ended };

struct Fiber {
  void* stack_pointer = nullptr;
  State state = State::ended;
  WarpCall call = WarpCall::none;
  unsigned mask = 0;
  std::uint64_t value = 0, result = 0;
  int argument = 0;
};

struct Shared {
  struct Free {
    void operator()(void* memory) const noexcept { std::free(memory); }
  };
  const void* key;
  std::size_t bytes;
  std::unique_ptr<void, Free> memory;
};

[[noreturn]] void fiber_main();

class Machine {
 public:
  void run(const Size& size, void (*call)(const void*), const void* body);
  [[noreturn]] void work();
  void wait(State state);
  Fiber& current() { return fibers_[running_]; }
  void* shared(const void* key, std::size_t bytes);

  Order order = Order::changing;
  std::int64_t launches = 0;

 private:
  void prepare(std::size_t threads);
  void reset();
  std::vector<unsigned> ordered(unsigned count, Order order) const;
  void run_block(const std::vector<unsigned>& threads);
  void resume(unsigned thread);
  std::string in_the_way(unsigned thread) const;
  void complete_warp(unsigned thread);
  [[noreturn]] void fail(const std::string& what);

  std::byte* stacks_ = nullptr;
  std::size_t prepared_ = 0;
  std::vector<Fiber> fibers_;
  std::vector<Shared> shared_;
  std::array<int, 32> arrived_{};  // lanes that wait in a call of their warp
  void* scheduler_ = nullptr;
  std::size_t running_ = 0, threads_ = 0;
  void (*call_)(const void*) = nullptr;
  const void* body_ = nullptr;
};

Machine machine;

void fiber_main() { machine.work(); }

void Machine::work() {
  for (;;) {
    call_(body_);
    wait(State::ended);
  }
}

void Machine::wait(State state) {
  current().state = state;
  smlp_switch_stack(&current().stack_pointer, scheduler_);
}

void Machine::prepare(std::size_t threads) {
  if (stacks_ == nullptr) {
    void* memory = mmap(nullptr, 1024 * stack_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    expect(memory != MAP_FAILED, "emulation: no memory for the stacks of threads");
    stacks_ = static_cast<std::byte*>(memory);
    fibers_.resize(1024);
  }
  for (; prepared_ < threads; ++prepared_) {
    auto** top = reinterpret_cast<void**>(stacks_ + (prepared_ + 1) * stack_bytes);
    top[-1] = nullptr;
    top[-2] = reinterpret_cast<void*>(fiber_main);
    for (int i = 3; i <= 8; ++i) top[-i] = nullptr;  // the registers
    fibers_[prepared_].stack_pointer = top - 8;
  }
}

// Threads left in the middle of a kernel start anew.
void Machine::reset() {
  if (stacks_ != nullptr && __asan_unpoison_memory_region)
    __asan_unpoison_memory_region(stacks_, 1024 * stack_bytes);
  prepared_ = 0;
  shared_.clear();
}

void Machine::fail(const std::string& what) {
  const std::string where = fmt::format("launch {}, block {},{}: {}", launches, blockIdx.x, blockIdx.y, what);
  reset();
  throw Error(ExitCode::fault, where);
}

std::vector<unsigned> Machine::ordered(unsigned count, Order way) const {
  std::vector<unsigned> all(count);
  std::iota(all.begin(), all.end(), 0u);
  if (way == Order::backwards) std::reverse(all.begin(), all.end());
  std::uint64_t word = static_cast<std::uint64_t>(launches) * 0x9E3779B97F4A7C15 + 1;
  for (std::size_t i = all.size(); way == Order::shuffled && i > 1; --i) {
    word ^= word << 13;
    word ^= word >> 7;
    word ^= word << 17;
    std::swap(all[i - 1], all[word % i]);
  }
  return all;
}

void Machine::run(const Size& size, void (*call)(const void*), const void* body) {
  prepare(size.threads);
  threads_ = size.threads;
  call_ = call;
  body_ = body;
  const Order way = order == Order::changing ? static_cast<Order>(launches % 3) : order;
  ++launches;
  const std::vector<unsigned> threads = ordered(size.threads, way);
  for (const unsigned block : ordered(size.blocks_x * size.blocks_y, way)) {
    ::blockIdx = {block % size.blocks_x, block / size.blocks_x, 0};
    for (const auto& memory : shared_) std::memset(memory.memory.get(), 0xFF, memory.bytes);
    run_block(threads);
  }
  shared_.clear();
}

void Machine::run_block(const std::vector<unsigned>& threads) {
  for (std::size_t t = 0; t < threads_; ++t) fibers_[t].state = State::ready;
  arrived_ = {};
  for (;;) {
    bool progress = false;
    // In order, a warp goes on as far as it can before the next: one that runs ahead of the others shows,
    // too.
    for (std::size_t first = 0; first < threads.size(); first += 32) {
      const auto some = std::span(threads).subspan(first, std::min<std::size_t>(32, threads.size() - first));
      for (bool again = true; again;) {
        again = false;
        for (const unsigned t : some) {
          if (fibers_[t].state != State::ready) continue;
          resume(t);
          progress = again = true;
        }
      }
    }
    if (progress) continue;
    std::size_t waiting = 0, ended = 0;
    for (const unsigned t : threads) {
      waiting += fibers_[t].state == State::at_barrier;
      ended += fibers_[t].state == State::ended;
    }
    if (ended == threads_) return;
    if (waiting < threads_) {
      for (const unsigned t : threads) {
        if (fibers_[t].state == State::in_warp) fail(in_the_way(t));
      }
      fail(
          fmt::format("of {} threads {} wait at __syncthreads, and {} have ended", threads_, waiting, ended));
    }
    for (const unsigned t : threads) fibers_[t].state = State::ready;
  }
}

void Machine::resume(unsigned thread) {
  running_ = thread;
  ::threadIdx = {thread, 0, 0};
  smlp_switch_stack(&scheduler_, fibers_[thread].stack_pointer);
  if (fibers_[thread].state == State::in_warp) complete_warp(thread);
}

// Why the call of a thread's warp can't be done; "" when all lanes of the mask are in it.
std::string Machine::in_the_way(unsigned thread) const {
  const std::size_t first = thread / 32 * 32;
  const Fiber& asked = fibers_[thread];
  if ((asked.mask >> (thread - first) & 1) == 0)
    return fmt::format("thread {} is not in the mask of its warp's call", thread);
  for (std::size_t lane = 0; lane < 32; ++lane) {
    if ((asked.mask >> lane & 1) == 0) continue;
    if (first + lane >= threads_)
      return fmt::format("a call of the warp names lane {}, and there is no such thread", lane);
    const Fiber& other = fibers_[first + lane];
    if (other.state == State::ended)
      return fmt::format("a call of the warp names lane {}, which has ended", lane);
    if (other.state != State::in_warp || other.call != asked.call || other.mask != asked.mask) {
      return fmt::format("a call of the warp names lane {}, which waits elsewhere", lane);
    }
  }
  return "";
}

void Machine::complete_warp(unsigned thread) {
  const std::size_t first = thread / 32 * 32;
  const Fiber asked = fibers_[thread];
  const int wanted = __builtin_popcount(asked.mask);
  if (++arrived_[thread / 32] < wanted || !in_the_way(thread).empty()) return;
  std::array<std::size_t, 32> lanes;
  std::size_t count = 0;
  for (std::size_t lane = 0; lane < 32; ++lane) {
    if (asked.mask >> lane & 1) lanes[count++] = lane;
  }
  arrived_[thread / 32] -= wanted;
  const std::span<const std::size_t> all(lanes.data(), count);
  for (const std::size_t lane : all) {
    Fiber& fiber = fibers_[first + lane];
    std::size_t from = lane;
    switch (fiber.call) {
      case WarpCall::shuffle:
        from = static_cast<std::size_t>(fiber.argument & 31);
        break;
      case WarpCall::shuffle_xor:
        from = lane ^ static_cast<std::size_t>(fiber.argument);
        break;
      case WarpCall::shuffle_up:
        from = lane < static_cast<std::size_t>(fiber.argument)
                   ? lane
                   : lane - static_cast<std::size_t>(fiber.argument);
        break;
      default:
        break;
    }
    if (from > 31 || (asked.mask >> from & 1) == 0)
      fail(fmt::format("lane {} reads from lane {}, which is not in the mask", lane, from));
    fiber.result = fibers_[first + from].value;
    if (fiber.call != WarpCall::ballot && fiber.call != WarpCall::match_any) continue;
    fiber.result = 0;
    for (const std::size_t other : all) {
      const bool bit = fiber.call == WarpCall::ballot ? fibers_[first + other].value != 0
                                                      : fibers_[first + other].value == fiber.value;
      fiber.result |= std::uint64_t{bit} << other;
    }
  }
  for (const std::size_t lane : all) fibers_[first + lane].state = State::ready;
}

void* Machine::shared(const void* key, std::size_t bytes) {
  for (const auto& memory : shared_) {
    if (memory.key == key) return memory.memory.get();
  }
  shared_.push_back({key, bytes, std::unique_ptr<void, Shared::Free>(std::malloc(bytes))});
  std::memset(shared_.back().memory.get(), 0xFF, bytes);
  return shared_.back().memory.get();
}

}  // namespace

void run(const Size& size, void (*call)(const void*), const void* body) { machine.run(size, call, body); }
void set_order(Order order) { machine.order = order; }
std::int64_t launches() { return machine.launches; }
void barrier() { machine.wait(State::at_barrier); }
void* shared_memory(const void* key, std::size_t bytes) { return machine.shared(key, bytes); }

std::uint64_t warp(WarpCall call, unsigned mask, std::uint64_t value, int argument) {
  Fiber& fiber = machine.current();
  fiber.call = call;
  fiber.mask = mask;
  fiber.value = value;
  fiber.argument = argument;
  machine.wait(State::in_warp);
  return fiber.result;
}

}  // namespace smlp::emulation
