// The job files of examples/: each loads and its values fit each other, data aside.
#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "core/job_file.h"

namespace smlp {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::vector<fs::path> jobs_in(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".toml") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

TEST(Examples, EveryJobFileIsSound) {
  for (const fs::path folder : {"examples", "examples/paper", "examples/paper/scaled"}) {
    const auto files = jobs_in(folder);
    EXPECT_FALSE(files.empty()) << folder;
    for (const auto& file : files) {
      SCOPED_TRACE(file);
      auto job = load_job(file);
      EXPECT_NO_THROW(check_and_resolve(job));
    }
  }
}

TEST(Examples, ThePapersRowsHaveTheSizesOfItsTables) {
  std::set<std::string> names;
  for (const auto& file : jobs_in("examples/paper")) {
    SCOPED_TRACE(file);
    const auto job = load_job(file).config;
    names.insert(file.stem());
    EXPECT_EQ(job.name, "paper-" + file.stem().string());
    const bool large = file.stem().string().starts_with("large"), dense = file.stem().string().starts_with("dense");
    EXPECT_EQ(job.model.context, 1024);
    EXPECT_EQ(job.model.width, large ? 2048 : 1024);
    EXPECT_EQ(job.model.hidden, large ? 8192 : 4096);
    EXPECT_EQ(job.optimizer.learning_rate, large ? 1e-3 : 5e-4);
    EXPECT_EQ(job.train.steps, large ? 100000 : 25000);
    EXPECT_EQ(job.train.global_batch, dense ? 256 : 512);
    EXPECT_EQ(job.train.micro_batch, large || dense ? 2 : 4);
    EXPECT_EQ(job.model.heads, job.model.kind == "smlp" || job.model.kind == "gmlp" ? 1 : 16);
    EXPECT_EQ(job.model.experts, job.model.kind == "gshard" ? 64 : job.model.sparse_blocks > 0 ? 32 : job.model.experts);
  }
  for (const std::string model : {"gshard", "switch", "base", "hash", "smlp"}) {
    EXPECT_TRUE(names.contains("small-" + model)) << model;
    EXPECT_TRUE(names.contains("large-" + model)) << model;
  }
  for (const std::string model : {"transformer", "gmlp", "smlp"}) EXPECT_TRUE(names.contains("dense-" + model)) << model;
  EXPECT_TRUE(names.contains("large-switch-enlarged"));
}

TEST(Examples, WhatThePaperDoesNotSayIsMarked) {
  const std::set<std::string> said = {"name", "kind", "context", "width", "hidden", "dense_blocks", "sparse_blocks", "experts",
                                      "heads", "dropout", "placement", "channels", "train", "learning_rate", "betas",
                                      "weight_decay", "warmup_steps", "initial_rate", "steps", "global_batch", "micro_batch",
                                      "ranks"};
  for (const auto& file : jobs_in("examples/paper")) {
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);) {
      const auto key = line.substr(0, line.find(" = "));
      if (key == line || line.starts_with("#") || said.contains(key)) continue;
      EXPECT_THAT(line, HasSubstr("  # choice")) << file;
    }
  }
}

TEST(Examples, EveryRowHasATwinThatTwoCoresCanTrain) {
  for (const auto& file : jobs_in("examples/paper")) {
    SCOPED_TRACE(file);
    const auto twin = load_job("examples/paper/scaled" / file.filename()).config;
    const auto row = load_job(file).config;
    EXPECT_EQ(twin.name, "scaled-" + file.stem().string());
    EXPECT_EQ(twin.model.kind, row.model.kind);
    EXPECT_EQ(twin.routing.channels, row.routing.channels);
    EXPECT_EQ(twin.model.sparse_blocks > 0, row.model.sparse_blocks > 0);
    EXPECT_LE(twin.cluster.ranks, 2);
    EXPECT_LE(twin.model.width, 256);
    EXPECT_GE(twin.train.steps * twin.train.global_batch * twin.model.context, 2'000'000);
  }
}

}  // namespace
}  // namespace smlp
