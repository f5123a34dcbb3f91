// A stable radix sort, eight bits a pass: counts of each tile, where each digit of each tile goes, and the
// move. Within a tile warps take their elements in order, and lanes with the same digit find each other by a
// vote.
#include <utility>

#include "tensor/cuda/kernels.h"
#include "tensor/cuda/launch.cuh"

namespace smlp::cuda {

namespace {

constexpr int digits = 256, warps = block_threads / 32, rounds = 16;
constexpr std::int64_t warp_elements = 32 * rounds, tile_elements = warps * warp_elements;

template <class Key>
__device__ int digit(Key key, int shift) {
  return static_cast<int>(key >> shift & (digits - 1));
}

// counts [digits, tiles]
template <class Key>
__global__ void __launch_bounds__(block_threads)
    count_digits(const Key* key, std::int64_t count, int shift, std::int32_t* counts) {
  SMLP_SHARED(int, of_digit, digits);
  of_digit[threadIdx.x] = 0;
  __syncthreads();
  const std::int64_t first = blockIdx.x * tile_elements;
  for (std::int64_t i = first + threadIdx.x; i < first + tile_elements && i < count; i += block_threads) {
    atomicAdd(of_digit + digit(key[i], shift), 1);
  }
  __syncthreads();
  counts[static_cast<std::int64_t>(threadIdx.x) * gridDim.x + blockIdx.x] = of_digit[threadIdx.x];
}

// counts become the sums before them. One block.
__global__ void __launch_bounds__(block_threads) sum_counts(std::int32_t* counts, std::int64_t size) {
  const std::int64_t each = (size + block_threads - 1) / block_threads, first = threadIdx.x * each;
  const std::int64_t end = first + each < size ? first + each : size;
  int sum = 0, total = 0;
  for (std::int64_t i = first; i < end; ++i) sum += counts[i];
  sum = sum_before(sum, &total);
  for (std::int64_t i = first; i < end; ++i) {
    const int here = counts[i];
    counts[i] = sum;
    sum += here;
  }
}

template <class Key>
__global__ void __launch_bounds__(block_threads)
    move_by_digit(const Key* key, const std::int32_t* value, std::int64_t count, int shift,
                  const std::int32_t* counts, Key* key_to, std::int32_t* value_to) {
  SMLP_SHARED(int, place, warps* digits);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const unsigned lane = threadIdx.x % 32;
  for (int i = static_cast<int>(threadIdx.x); i < warps * digits; i += block_threads) place[i] = 0;
  __syncthreads();
  const std::int64_t first = blockIdx.x * tile_elements + warp * warp_elements;
  for (std::int64_t i = first + lane; i < first + warp_elements && i < count; i += 32) {
    atomicAdd(place + warp * digits + digit(key[i], shift), 1);
  }
  __syncthreads();
  int next = counts[static_cast<std::int64_t>(threadIdx.x) * gridDim.x + blockIdx.x];
  for (int w = 0; w < warps; ++w) {
    const int here = place[w * digits + threadIdx.x];
    place[w * digits + threadIdx.x] = next;
    next += here;
  }
  __syncthreads();
  for (std::int64_t base = first; base < first + warp_elements && base < count; base += 32) {
    const std::int64_t i = base + lane;
    const bool there = i < count;
    const Key k = there ? key[i] : Key{};
    const int d = there ? digit(k, shift) : digits;
    const unsigned same = __match_any_sync(all_lanes, static_cast<unsigned>(d));
    const int before = __popc(same & ((1u << lane) - 1));
    const int to = there ? place[warp * digits + d] + before : 0;
    __syncwarp();
    if (there && before == 0) place[warp * digits + d] = to + __popc(same);
    __syncwarp();
    if (!there) continue;
    key_to[to] = k;
    value_to[to] = value[i];
  }
}

template <class Key>
void pass(cudaStream_t stream, std::int64_t count, int shift, std::int32_t* counts, const Key* key,
          const std::int32_t* value, Key* key_to, std::int32_t* value_to) {
  const std::int64_t tiles = (count + tile_elements - 1) / tile_elements;
  launch(stream, grid(tiles), count_digits<Key>, key, count, shift, counts);
  launch(stream, grid(1), sum_counts, counts, tiles * digits);
  launch(stream, grid(tiles), move_by_digit<Key>, key, value, count, shift, counts, key_to, value_to);
}

template <class Key>
void sort_as(cudaStream_t stream, const Sort& s, int bits, Key* key, Key* other_key) {
  std::int32_t *value = s.value, *other = s.other_value;
  int shift = 0;
  for (; shift < bits; shift += 8) {
    pass(stream, s.count, shift, s.counts, key, value, other_key, other);
    std::swap(key, other_key);
    std::swap(value, other);
  }
  if (value == s.value) return;  // an even number of passes
  check(cudaMemcpyAsync(other, value, static_cast<std::size_t>(s.count) * sizeof *value,
                        cudaMemcpyDeviceToDevice, stream),
        "a copy on the device failed");
  check(cudaMemcpyAsync(other_key, key, static_cast<std::size_t>(s.count) * sizeof *key,
                        cudaMemcpyDeviceToDevice, stream),
        "a copy on the device failed");
}

}  // namespace

std::int64_t sort_counts(std::int64_t count) { return (count + tile_elements - 1) / tile_elements * digits; }

int bits_for(std::int64_t values) {
  int bits = 0;
  while (std::int64_t{1} << bits < values) ++bits;
  return bits;
}

void sort(cudaStream_t stream, const Sort& s, int bits) {
  if (s.count == 0) return;
  if (s.wide_key) return sort_as(stream, s, bits, s.wide_key, s.other_wide_key);
  sort_as(stream, s, bits, s.key, s.other_key);
}

}  // namespace smlp::cuda
