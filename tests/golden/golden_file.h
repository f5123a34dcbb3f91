// One file of golden vectors: a model of known weights, a batch, and what an independent implementation made
// of them. The folder is $SMLP_GOLDEN_DIR, or golden/ of $SMLP_SHARED_DATA, or of ../shared/data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "layers/model.h"

namespace smlp::test {

struct GoldenTensor {
  std::vector<std::int64_t> shape;
  std::vector<double> data;
};

struct GoldenFile {
  std::string name;
  std::vector<std::string> stack;
  std::optional<ModelConfig> config;  // empty: this build has no such model, because of
  std::string missing;
  std::int64_t batch = 0;
  std::vector<std::int32_t> tokens, targets;
  std::map<std::string, GoldenTensor> weights, gradients;
  std::vector<double> logits;
  double loss = 0;
  AdamWSettings optimizer;
  double learning_rate = 0;
  std::vector<double> losses, gradient_norms;
};

std::filesystem::path golden_folder();
std::vector<std::filesystem::path> golden_files();  // sorted; empty where there is no such folder
GoldenFile read_golden(const std::filesystem::path& path);

}  // namespace smlp::test
