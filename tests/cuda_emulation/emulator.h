// Runs the threads of a kernel one after another on the host, as fibers of one thread: block by block, each
// fiber up to its next barrier, shuffle or end. Orders of threads and of blocks change from launch to launch
// (forwards, backwards, shuffled), so that what depends on them shows. Shared memory is the heap's, exactly
// as large as declared, so that the address sanitizer sees every byte beyond. A rule that is broken throws
// Error(fault) from the launch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

struct CUstream_st;

namespace smlp::emulation {

// A kernel or a copy, with its arguments as they are now: runs, is kept where the stream is captured, or is refused
// (false) where its capture has failed. streams.h
bool enqueue(CUstream_st* stream, const std::function<void()>& work);
void hand_over(CUstream_st* stream, const std::function<void()>& work);  // the same; throws where it is refused

struct Size {
  unsigned blocks_x, blocks_y, threads;
};
void run(const Size& size, void (*call)(const void*), const void* body);

enum class Order : int { forwards, backwards, shuffled, changing };
void set_order(Order order);  // changing (from launch to launch) unless told otherwise
std::int64_t launches();      // so far
void set_devices(int count);  // 0: no driver is there
constexpr std::size_t default_device_memory = std::size_t{16} << 30;
void set_driver_version(int version);  // as CUDA counts it, 12040 for 12.4
void set_device_memory(std::size_t bytes);  // what cudaMemGetInfo tells; it limits nothing
void set_driver_error(int error);  // the cudaError that counting devices and taking memory meet; 0: none

// The products of libraries (cublas_lt.cpp, cublas.cpp): how many were enqueued so far, and how many of them with what follows
// them. What a test has the library refuse that its rules allow, as a version or a card may.
std::int64_t products();
std::int64_t products_with_ends();
int last_algorithm();  // of the last one by cuBLASLt: 0 is its best offer
struct Refusals {
  bool ends = false, groups = false, products = false;  // what follows products; groups at once; any that nothing follows
  bool when_planned = false;  // the first and the last of these by finding no algorithm; else by each algorithm, when it is called
  int algorithms = 0;         // so many of the first ones are refused when they are called
  bool recorded = false;      // whatever is called while its stream is captured fails
  bool for_memory = false;    // whatever is called finds no memory for its kernel
};
void refuse(const Refusals& refusals);
const Refusals& refusals();

void barrier();

enum class WarpCall : int { none, sync, shuffle, shuffle_xor, shuffle_up, ballot, match_any };
std::uint64_t warp(WarpCall call, unsigned mask, std::uint64_t value, int argument);

template <class T>
T exchange(WarpCall call, unsigned mask, T value, int argument) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = warp(call, mask, bits, argument);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The block's memory for the declaration that `key` names.
void* shared_memory(const void* key, std::size_t bytes);

}  // namespace smlp::emulation

// In place of CUDA's __shared__ (tensor/cuda/block.cuh).
#define SMLP_SHARED(type, name, count)                                  \
  type* const name = static_cast<type*>(smlp::emulation::shared_memory( \
      []() -> const void* {                                             \
        static const char here = 0;                                     \
        return &here;                                                   \
      }(),                                                              \
      sizeof(type) * (count)))
