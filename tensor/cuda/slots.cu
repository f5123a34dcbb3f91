// Gates over slots, and tables.
#include "tensor/cuda/launch.cuh"
#include "tensor/cuda/routing_kernels.h"

namespace smlp::cuda {

namespace {

__device__ int expert_of(const SlotRange& range, std::int64_t slot) {
  int low = 0, high = range.experts - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (range.start[middle] <= slot) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low + range.first_expert;
}

__device__ bool is_token(std::int64_t token, std::int64_t tokens, int* fault) {
  if (token >= tokens) *fault = static_cast<int>(FaultKind::token);
  return token >= 0 && token < tokens;
}

struct Sigmoid {
  SlotRange range;
  SlotGate g;
  int* fault;
  template <int n>
  __device__ void at(std::int64_t, std::int64_t i) const {
    const std::int64_t slot = range.start[0] + i, token = g.token[slot];
    double alpha = 0;
    if (is_token(token, g.tokens, fault))
      alpha = 1 / (1 + exp(-number_at(g.scores, token * g.stride + expert_of(range, slot))));
    put_number(g.alpha, slot, alpha);
  }
};

struct SigmoidBackward {
  SlotRange range;
  SlotGate g;
  int* fault;
  template <int n>
  __device__ void at(std::int64_t, std::int64_t i) const {
    const std::int64_t slot = range.start[0] + i, token = g.token[slot];
    if (!is_token(token, g.tokens, fault)) return;
    const std::int64_t place = token * g.stride + expert_of(range, slot);
    const double alpha = number_at(g.alpha, slot);
    put_number(g.scores, place, number_at(g.scores, place) + number_at(g.dalpha, slot) * alpha * (1 - alpha));
  }
};

struct ExpertOfSlot {
  SlotRange range;
  std::int32_t* expert;
  template <int n>
  __device__ void at(std::int64_t, std::int64_t i) const {
    expert[range.start[0] + i] = expert_of(range, range.start[0] + i);
  }
};

template <class Body>
void for_slots(cudaStream_t stream, const SlotRange& range, const Body& body) {
  const std::int64_t slots = range.start[range.experts] - range.start[0], one = 1;
  if (slots > 0) launch(stream, grid(blocks_for(slots, block_threads)), elements<1, Body>, one, slots, body);
}

// Of one row, by the lanes of a warp: exp(score - most) / total is a gate.
struct RowSoftmax {
  const float* row;
  float most = -INFINITY, total = 0;

  __device__ RowSoftmax(const float* scores, std::int64_t experts) : row(scores) {
    const std::int64_t lane = threadIdx.x % 32;
    for (std::int64_t e = lane; e < experts; e += 32) most = row[e] > most ? row[e] : most;
    most = across_warp(most, Most{});
    for (std::int64_t e = lane; e < experts; e += 32) total += expf(row[e] - most);
    total = across_warp(total, Sum{});
  }
  __device__ float operator()(std::int64_t e) const { return expf(row[e] - most) / total; }
};

__global__ void __launch_bounds__(block_threads) softmax_slots(SlotRange range, SoftmaxGate g, int* fault) {
  const std::int64_t slot = range.start[0] + team_number<32>();
  if (slot >= range.start[range.experts]) return;
  const std::int64_t token = g.token[slot];
  float alpha = 0;
  if (is_token(token, g.tokens, fault))
    alpha = RowSoftmax(g.scores + token * g.experts, g.experts)(expert_of(range, slot));
  if (threadIdx.x % 32 == 0) g.alpha[slot] = alpha;
}

// The warp of the first slot of a token adds what all its slots send.
__global__ void __launch_bounds__(block_threads)
    softmax_slots_backward(SoftmaxGate g, const std::int32_t* expert, std::int64_t count,
                           const std::uint32_t* key, const std::int32_t* value) {
  const std::int64_t first = team_number<32>();
  if (first >= count) return;
  const std::uint32_t token = key[first];
  if (token >= g.tokens || (first > 0 && key[first - 1] == token)) return;
  const std::int64_t row = token * g.experts;
  const RowSoftmax chance(g.scores + row, g.experts);
  for (std::int64_t i = first; i < count && key[i] == token; ++i) {
    const std::int64_t slot = value[i], e = expert[slot];
    const float slope = g.dalpha[slot] * chance(e);
    for (std::int64_t f = threadIdx.x % 32; f < g.experts; f += 32)
      g.dscores[row + f] += slope * ((f == e ? 1.0f : 0.0f) - chance(f));
  }
}

struct LookUp {
  const std::int32_t *table, *index;
  std::int64_t size;
  std::int32_t* out;
  int* fault;
  template <int n>
  __device__ void at(std::int64_t, std::int64_t s) const {
    const std::int32_t place = index[s];
    const bool inside = place >= 0 && place < size;
    if (!inside) *fault = static_cast<int>(FaultKind::table);
    out[s] = inside ? table[place] : -1;
  }
};

}  // namespace

void sigmoid_of_slots(cudaStream_t stream, const SlotRange& range, const SlotGate& g, int* fault) {
  for_slots(stream, range, Sigmoid{range, g, fault});
}

void sigmoid_of_slots_backward(cudaStream_t stream, const SlotRange& range, const SlotGate& g, int* fault) {
  for_slots(stream, range, SigmoidBackward{range, g, fault});
}

void expert_of_slots(cudaStream_t stream, const SlotRange& range, std::int32_t* expert) {
  for_slots(stream, range, ExpertOfSlot{range, expert});
}

void softmax_of_slots(cudaStream_t stream, const SlotRange& range, const SoftmaxGate& g, int* fault) {
  constexpr int warps = block_threads / 32;
  const std::int64_t slots = range.start[range.experts] - range.start[0];
  launch(stream, grid((slots + warps - 1) / warps), softmax_slots, range, g, fault);
}

void softmax_of_slots_backward(cudaStream_t stream, const SoftmaxGate& g, const std::int32_t* expert,
                               const Sort& sorted) {
  constexpr int warps = block_threads / 32;
  launch(stream, grid((sorted.count + warps - 1) / warps), softmax_slots_backward, g, expert, sorted.count,
         sorted.key, sorted.value);
}

void look_up(cudaStream_t stream, const std::int32_t* table, std::int64_t size, const std::int32_t* index,
             std::int64_t count, std::int32_t* out, int* fault) {
  const std::int64_t one = 1;
  if (count > 0)
    launch(stream, grid(blocks_for(count, block_threads)), elements<1, LookUp>, one, count,
           LookUp{table, index, size, out, fault});
}

}  // namespace smlp::cuda
