// `bench comm`: the collectives of a training step at the sizes of this job and around them, beside what the
// memory gives while every rank copies at once; on GPUs, beside what the link to the host gives.
#include <algorithm>
#include <functional>
#include <vector>

#include "core/layout.h"
#include "core/statistics.h"
#include "worker/bench.h"
#include "worker/engine.h"
#include "worker/stopwatch.h"
#include "worker/world.h"

namespace smlp {

namespace {

constexpr double seconds_a_size = 0.4;
constexpr std::int64_t mebibyte = std::int64_t{1} << 20;

// Two views of the backend's memory, for as long as the benchmark runs.
class Memory {
 public:
  Memory(Backend& backend, std::int64_t bytes) : backend_(backend), from_(take(bytes)), to_(take(bytes)) {}
  ~Memory() {
    backend_.release(from_.data);
    backend_.release(to_.data);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  TensorView from(std::int64_t bytes) const { return {from_.data, {bytes / 4}, DType::f32}; }
  TensorView to(std::int64_t bytes) const { return {to_.data, {bytes / 4}, DType::f32}; }

 private:
  TensorView take(std::int64_t bytes) {
    TensorView view(backend_.allocate(bytes), {bytes / 4}, DType::f32);
    backend_.fill(view, 0);
    return view;
  }
  Backend& backend_;
  TensorView from_, to_;
};

// The median of the time that the slowest rank takes, each call begun by all together.
double median_seconds(Communicator& world, Backend& backend, const std::function<void()>& call) {
  const auto timed = [&] {
    backend.synchronize();
    world.barrier();
    return backend.timed(call);
  };
  timed();
  const Stopwatch watch;  // with the waits around a call: ranks that share a GPU have it in turns
  timed();
  double round = std::max(1e-7, watch.seconds());
  world.all_reduce_host({&round, 1}, Reduce::max);
  std::vector<double> seconds(static_cast<std::size_t>(std::clamp(seconds_a_size / round, 5.0, 2000.0)));
  for (auto& s : seconds) s = timed();
  world.all_reduce_host(seconds, Reduce::max);
  return upper_median(std::move(seconds));
}

// Seconds for so many bytes the shortest way that every rank has: a copy in its memory; on a GPU to the host and back.
double copy_seconds(Communicator& world, Backend& backend, const Memory& memory, std::int64_t bytes, std::int64_t total) {
  std::vector<char> host(backend.in_host_memory() ? 0 : static_cast<std::size_t>(bytes));
  return median_seconds(world, backend, [&] {
    for (std::int64_t left = total; left > 0; left -= bytes) {  // a reduction passes on more than its own size
      const auto part = std::min(left, bytes);
      if (host.empty()) {
        backend.copy(memory.from(part), memory.to(part));
      } else {
        backend.download(memory.from(part), host.data());
        backend.upload(host.data(), memory.to(part));
      }
    }
  });
}

// One collective of `group` on `bytes` of each rank, which all groups make at once, beside copying as many bytes as a rank
// passes to the others.
nlohmann::json measure(Communicator& world, const Communicator& group, Backend& backend, const Memory& memory, std::int64_t bytes,
                       const std::function<void()>& call) {
  const std::int64_t before = group.bytes_sent();
  call();
  const std::int64_t sent = (group.bytes_sent() - before) / 4 * 4;
  const double seconds = median_seconds(world, backend, call);
  nlohmann::json line = {{"bytes", bytes}, {"sent_bytes", sent}, {"seconds", seconds}};
  double most = static_cast<double>(sent);
  world.all_reduce_host({&most, 1}, Reduce::max);
  if (most > 0) {
    const double copy = copy_seconds(world, backend, memory, bytes, static_cast<std::int64_t>(most));
    line["bytes_per_second"] = most / seconds;
    line["copy_bytes_per_second"] = most / copy;
    line["share"] = copy / seconds;
  }
  return line;
}

}  // namespace

void bench_comm(const BenchOptions& options, nlohmann::json& result) {
  auto job = options.job;
  auto backend = make_backend(job);
  auto joined = join_world(*backend, job.cluster.communicator);
  spread_over(job, joined->size());
  const auto grid = ProcessGrid::cut(std::move(joined), static_cast<int>(job.cluster.expert_ranks));
  const bool exchanges_tokens = job.model.sparse_blocks > 0;
  auto *world = grid.world.get(), *group = exchanges_tokens ? grid.experts.get() : world;
  const std::int64_t ways = group->size();
  const std::int64_t exchange = exchanges_tokens ? job.train.micro_batch * job.model.context * job.model.width *
                                                       size_of(value_type(job)) / (ways * 4) * ways * 4
                                                 : 0;
  std::vector<std::int64_t> reductions = {mebibyte, 16 * mebibyte, 64 * mebibyte};
  std::vector<std::int64_t> exchanges = {mebibyte / 16, mebibyte, 4 * mebibyte, exchange};
  for (auto* sizes : {&reductions, &exchanges}) {
    for (auto& size : *sizes) size = std::min(size, options.most_bytes);
    std::sort(sizes->begin(), sizes->end());
    sizes->erase(std::unique(sizes->begin(), sizes->end()), sizes->end());
  }
  const Memory memory(*backend, std::max(reductions.back(), exchanges.back()));

  nlohmann::json found = {{"ranks", world->size()},
                          {"expert_ranks", ways},
                          {"device", device_name(gpu_of(job))},
                          {"exchange_bytes_of_this_job", exchange}};
  std::vector<double> flags(8, 0.0);
  found["barrier_seconds"] = median_seconds(*world, *backend, [&] { world->barrier(); });
  found["agreement_seconds"] =
      median_seconds(*world, *backend, [&] { world->all_reduce_host(flags, Reduce::sum); });
  for (const auto bytes : reductions) {
    found["all_reduce"].push_back(measure(*world, *world, *backend, memory, bytes, [&] {
      world->after(*backend);
      world->all_reduce(memory.to(bytes), Reduce::sum);
      world->before(*backend);
    }));
  }
  for (const auto bytes : exchanges) {
    const std::int64_t row = bytes / ways;
    if (row < 4) continue;
    const std::vector<std::int64_t> rows(static_cast<std::size_t>(ways), 1);
    const Shape shape = {ways, row / 4};
    found["all_to_all"].push_back(measure(*world, *group, *backend, memory, bytes, [&] {
      group->after(*backend);
      group->all_to_all(memory.from(row / 4 * 4 * ways).reshaped(shape), rows,
                        memory.to(row / 4 * 4 * ways).reshaped(shape), rows);
      group->before(*backend);
    }));
  }
  if (world->rank() == 0) result = std::move(found);
}

}  // namespace smlp
