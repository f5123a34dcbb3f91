#include <fmt/format.h>

#include <map>

#include "core/error.h"
#include "core/json_text.h"
#include "worker/bench.h"
#include "worker/commands.h"

namespace smlp {

namespace {

void print_flat(const nlohmann::json& value, const std::string& name) {
  if (value.is_object()) {
    for (const auto& [key, inner] : value.items()) print_flat(inner, name.empty() ? key : name + "." + key);
  } else if (value.is_array() && !value.empty() && value[0].is_object()) {
    for (std::size_t i = 0; i < value.size(); ++i) print_flat(value[i], fmt::format("{}[{}]", name, i));
  } else if (value.is_number_float()) {
    fmt::print("{:<44} {:.6g}\n", name, value.get<double>());
  } else {
    fmt::print("{:<44} {}\n", name, json_text(value));
  }
}

}  // namespace

void bench_command(const std::string& what, const JobConfig& job, bool json) {
  const std::map<std::string, void (*)(const BenchOptions&, nlohmann::json&)> benches = {
      {"step", bench_step},       {"scaling", bench_scaling}, {"kernels", bench_kernels},
      {"comm", bench_comm},       {"routing", bench_routing}, {"checkpoint", bench_checkpoint}};
  const auto found = benches.find(what);
  if (found == benches.end()) {
    throw Error(ExitCode::usage, fmt::format("there is no benchmark '{}'; there are step, scaling, kernels, comm, "
                                             "checkpoint and routing", what));
  }
  nlohmann::json result;
  found->second({.job = job}, result);
  if (result.is_null()) return;  // not rank 0
  if (json) {
    fmt::print("{}\n", json_text(result, 2));
  } else {
    print_flat(result, "");
  }
}

}  // namespace smlp
