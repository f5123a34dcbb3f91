// What smlp-worker does besides training, one function a mode. Each prints to stdout from rank 0 alone.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "core/job_config.h"
#include "data/tokenizer.h"
#include "eval/generate.h"
#include "worker/engine.h"

namespace smlp {

// A model with the weights of a checkpoint, and the job it was trained by.
struct LoadedModel {
  JobConfig job;
  std::unique_ptr<Engine> engine;
  std::string tokenizer;  // fingerprint of the one it was trained with; "": not known
};
// One checkpoint, chosen and verified by the command that started this process, and no other: all ranks load the same.
LoadedModel load_model(const std::filesystem::path& checkpoint);

struct CausalityOptions {
  std::optional<std::filesystem::path> checkpoint;  // its weights; none: fresh ones
  std::int64_t tries = 32;
  std::uint64_t seed = 1;
  bool json = false;
};

void evaluate_command(const std::filesystem::path& checkpoint, const std::string& data, bool json);
void generate_command(const std::filesystem::path& checkpoint, const std::string& prompt, GenerationSettings settings);
void plan_command(const JobConfig& job, bool json);
void plan_tensors_command(const JobConfig& job);  // tensors_json()
void paper_plan_command(bool json);  // our counts beside the paper's
bool causality_command(const JobConfig& job, const CausalityOptions& options);  // false: it leaks
void bench_command(const std::string& what, const JobConfig& job, bool json);

}  // namespace smlp
