// Who gets which place at an expert, by stable sorts: the served order brings the choices of each (group,
// expert) together.
#include "tensor/cuda/choice.cuh"

namespace smlp::cuda {

namespace {

__global__ void __launch_bounds__(block_threads)
    find_best(Numbers scores, std::int64_t tokens, std::int64_t experts, std::int64_t stride,
              std::uint32_t* key, std::int32_t* value) {
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (token >= tokens) return;
  std::uint32_t best = 0;
  double most = number_at(scores, token * stride);
  for (std::int64_t e = 1; e < experts; ++e) {
    const double score = number_at(scores, token * stride + e);
    if (score > most || (most != most && score == score)) {
      best = static_cast<std::uint32_t>(e);
      most = score;
    }
  }
  key[token] = best;
  value[token] = static_cast<std::int32_t>(token);
}

__global__ void __launch_bounds__(block_threads)
    mark_starts(const std::uint32_t* key, std::int64_t count, int shift, std::int64_t runs,
                std::int32_t* start) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (i > count) return;
  const std::int64_t before = i == 0 ? -1 : std::int64_t{key[i - 1] >> shift};
  const std::int64_t here = i == count ? runs : std::int64_t{key[i] >> shift};
  for (std::int64_t k = before + 1; k <= here && k <= runs; ++k) start[k] = static_cast<std::int32_t>(i);
}

struct Served {
  std::int64_t tokens, experts, group_rows, stride;
  int choices;
  PlaceOrder order;
  Numbers gates;
  const std::int32_t* expert;
  ChoiceNoise noise;
};

// Choice i of the unsorted list: all first choices, then all second ones.
__device__ std::int64_t choice_of(const Served& s, std::int64_t i) {
  return i % s.tokens * s.choices + i / s.tokens;
}

__device__ double gate_or_less(const Served& s, std::int64_t row, std::int64_t e) {
  const double gate = number_at(s.gates, row * s.stride + e);
  return gate == gate ? gate : -1;  // NaN has no order
}

__device__ double weight_of(const Served& s, std::int64_t choice) {
  const std::int64_t row = choice / s.choices;
  if (s.order == PlaceOrder::random)
    return uniform(s.noise, static_cast<std::uint64_t>(s.noise.first_row + row), ChoiceNoise::order_kind);
  if (s.order == PlaceOrder::choice_gate) {
    const std::int32_t e = s.expert[choice];
    return e < 0 || e >= s.experts ? -1 : gate_or_less(s, row, e);
  }
  double most = number_at(s.gates, row * s.stride);
  for (std::int64_t e = 1; e < s.experts; ++e) {
    const double gate = number_at(s.gates, row * s.stride + e);
    most = most < gate ? gate : most;
  }
  return most == most ? most : -1;
}

__global__ void __launch_bounds__(block_threads)
    weigh(Served s, std::int64_t count, std::uint64_t* key, std::int32_t* value) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (i >= count) return;
  value[i] = static_cast<std::int32_t>(choice_of(s, i));
  if (key == nullptr) return;
  key[i] = ~ordered(weight_of(s, value[i]));
}

// Twice the cell (group, expert), and one more for second choices where they stand behind all first ones.
__global__ void __launch_bounds__(block_threads)
    find_cells(Served s, std::int64_t count, std::int64_t cells, const std::int32_t* value,
               std::uint32_t* key, std::int32_t* value_to, int* fault) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (i >= count) return;
  const std::int64_t choice = value[i], row = choice / s.choices, which = choice % s.choices;
  const std::int32_t e = s.expert[choice];
  if (e >= s.experts) *fault = static_cast<int>(FaultKind::expert);
  std::int64_t cell = 2 * cells;
  if (e >= 0 && e < s.experts)
    cell = 2 * (row / s.group_rows * s.experts + e) + (s.order == PlaceOrder::choice_gate ? 0 : which);
  key[i] = static_cast<std::uint32_t>(cell);
  value_to[i] = value[i];
}

struct Layout {
  std::int64_t groups, experts, capacity, last_capacity, last_group;
  bool compact;
  const std::int32_t* start;
  std::int32_t* first_slot;
  std::int64_t* rows_of_expert;
  double *dropped, *taken;
};

__device__ std::int64_t room(const Layout& l, std::int64_t group) {
  return group == l.last_group ? l.last_capacity : l.capacity;
}
__device__ std::int64_t asked(const Layout& l, std::int64_t cell) {
  return l.start[cell + 1] - l.start[cell];
}

// Where the slots of each cell begin. One block: its threads take experts in turn, runs of them one after
// another.
__global__ void __launch_bounds__(block_threads) lay_out(Layout l) {
  double dropped = 0;
  int before = 0;
  for (std::int64_t base = 0; base < l.experts; base += block_threads) {
    const std::int64_t e = base + threadIdx.x;
    int rows = 0, all = 0;
    for (std::int64_t g = 0; e < l.experts && g < l.groups; ++g) {
      const std::int64_t wanted = asked(l, g * l.experts + e), most = room(l, g);
      const std::int64_t used = most >= 0 && wanted > most ? most : wanted;
      rows += static_cast<int>(used);
      dropped += static_cast<double>(wanted - used);
    }
    int next = before + sum_before(rows, &all);
    before += all;
    if (e >= l.experts) continue;
    l.rows_of_expert[e] = rows;
    if (l.taken) l.taken[e] += rows;
    for (std::int64_t g = 0; g < l.groups; ++g) {
      const std::int64_t wanted = asked(l, g * l.experts + e), most = room(l, g);
      l.first_slot[g * l.experts + e] =
          l.compact ? next : static_cast<std::int32_t>((e * l.groups + g) * l.capacity);
      next += static_cast<int>(most >= 0 && wanted > most ? most : wanted);
    }
  }
  dropped = across_block(dropped, Sum{});
  if (threadIdx.x == 0 && l.dropped) *l.dropped += dropped;
}

__global__ void __launch_bounds__(block_threads)
    seat(Layout l, std::int64_t count, int choices, const std::uint32_t* key, const std::int32_t* value,
         std::int32_t* token_of_slot, std::int32_t* slot_of) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (i >= count) return;
  const std::int64_t cell = key[i] >> 1;
  std::int32_t slot = -1;
  if (cell < l.groups * l.experts) {
    const std::int64_t place = i - l.start[cell], most = room(l, cell / l.experts);
    if (most < 0 || place < most) {
      slot = l.first_slot[cell] + static_cast<std::int32_t>(place);
      token_of_slot[slot] = value[i] / choices;
    }
  }
  if (slot_of) slot_of[value[i]] = slot;
}

dim3 one_each(std::int64_t count) { return grid((count + block_threads - 1) / block_threads); }

}  // namespace

void best_experts(cudaStream_t stream, const Numbers& scores, std::int64_t tokens, std::int64_t experts,
                  std::int64_t stride, const Sort& s) {
  launch(stream, one_each(tokens), find_best, scores, tokens, experts, stride, s.key, s.value);
}

void run_starts(cudaStream_t stream, const Sort& sorted, int shift, std::int64_t runs, std::int32_t* start) {
  launch(stream, one_each(sorted.count + 1), mark_starts, sorted.key, sorted.count, shift, runs, start);
}

void place_tokens(cudaStream_t stream, const PlaceTokens& p, const Sort& weights, const Sort& cells,
                  const PlaceScratch& scratch, int* fault) {
  const std::int64_t tokens = p.expert.shape[0], count = p.expert.size(),
                     groups = (tokens + p.group_rows - 1) / p.group_rows;
  const auto choices = static_cast<int>(p.expert.shape[1]);
  const std::int64_t all_cells = groups * p.experts, whole = tokens / p.group_rows;
  const Served served{tokens,  p.experts, p.group_rows,     p.gates ? p.gates.stride[0] : 0,
                      choices, p.order,   numbers(p.gates), p.expert.as<const std::int32_t>(),
                      p.noise};
  const bool by_weight = p.order != PlaceOrder::position;
  launch(stream, one_each(count), weigh, served, count, by_weight ? weights.wide_key : nullptr,
         weights.value);
  if (by_weight) sort(stream, weights, 64);
  launch(stream, one_each(count), find_cells, served, count, all_cells, weights.value, cells.key, cells.value,
         fault);
  sort(stream, cells, bits_for(2 * all_cells + 1));
  run_starts(stream, cells, 1, all_cells + 1, scratch.start);
  const Layout layout{groups,
                      p.experts,
                      p.capacity,
                      p.last_capacity,
                      whole == groups ? -1 : whole,
                      !p.rows_of_expert.empty(),
                      scratch.start,
                      scratch.first_slot,
                      scratch.rows_of_expert,
                      p.dropped.as<double>(),
                      p.taken.as<double>()};
  launch(stream, grid(1), lay_out, layout);
  launch(stream, one_each(count), seat, layout, count, choices, cells.key, cells.value,
         p.token_of_slot.as<std::int32_t>(), p.slot.as<std::int32_t>());
}

}  // namespace smlp::cuda
