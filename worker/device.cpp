#include "worker/device.h"

#include <fmt/format.h>

#include <map>

#include "core/error.h"
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

constexpr int least_of_bf16 = 80;

ProductEnds product_ends(const JobConfig& job) {
  static const std::map<std::string, ProductEnds> named = {{"library", ProductEnds::library},
                                                           {"own_bias_gradient", ProductEnds::own_bias_gradient},
                                                           {"own_gelu", ProductEnds::own_gelu},
                                                           {"own", ProductEnds::own}};
  return named.at(job.cluster.product_ends);
}

// Earlier ones have no units for it, and some products none at all.
void expect_to_compute_in(const std::string& precision, int gpu) {
  const int capability = precision == "bf16" && gpu < cuda_devices() ? cuda_capability(gpu) : least_of_bf16;
  if (capability >= least_of_bf16) return;
  throw Error(ExitCode::configuration,
              fmt::format("train.precision = \"bf16\" needs a GPU of compute capability 8.0 or later (Ampere), and GPU {} has "
                          "{}.{}: take \"fp16\", or other nodes",
                          gpu, capability / 10, capability % 10));
}

}  // namespace

std::unique_ptr<Backend> make_backend(const JobConfig& job) {
  if (const auto gpu = gpu_of(job)) {
    expect_to_compute_in(job.train.precision, *gpu);
    return make_cuda_backend({.device = *gpu,
                              .tf32 = job.train.tf32,
                              .product_ends = product_ends(job),
                              .deterministic = job.cluster.deterministic});
  }
  return make_cpu_backend({.threads = static_cast<int>(job.cluster.threads)});
}

}  // namespace smlp
