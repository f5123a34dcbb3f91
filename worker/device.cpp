#include "worker/device.h"

#include <fmt/format.h>

#include <map>

#include "worker/own_cores.h"

namespace smlp {

std::optional<int> gpu_of(const JobConfig& job, int gpus, std::int64_t local_rank) {
  const bool wanted = job.cluster.device == "cuda", possible = gpus > 0 && job.train.precision != "f64";
  if (!wanted && (job.cluster.device == "cpu" || !possible)) return std::nullopt;
  return gpus > 0 ? static_cast<int>(local_rank % gpus) : 0;
}

std::optional<int> gpu_of(const JobConfig& job) {
  if (job.cluster.device == "cpu") return std::nullopt;  // also where the driver of its GPUs is ill
  return gpu_of(job, cuda_devices(), local_rank().value_or(0));
}

std::string device_name(const std::optional<int>& gpu) { return gpu ? fmt::format("cuda:{}", *gpu) : "cpu"; }

namespace {

ProductEnds product_ends(const JobConfig& job) {
  static const std::map<std::string, ProductEnds> named = {{"library", ProductEnds::library},
                                                           {"own_bias_gradient", ProductEnds::own_bias_gradient},
                                                           {"own_gelu", ProductEnds::own_gelu},
                                                           {"own", ProductEnds::own}};
  return named.at(job.cluster.product_ends);
}

}  // namespace

std::unique_ptr<Backend> make_backend(const JobConfig& job) {
  if (const auto gpu = gpu_of(job)) {
    return make_cuda_backend({.device = *gpu,
                              .tf32 = job.train.tf32,
                              .product_ends = product_ends(job),
                              .deterministic = job.cluster.deterministic});
  }
  return make_cpu_backend({.threads = static_cast<int>(job.cluster.threads)});
}

}  // namespace smlp
