// A run directory of its own for each test, with a folder for the logs of the first attempt.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>

#include "core/run_directory.h"

namespace smlp::test {

class RunFolder : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "smlp-launcher-XXXXXX";
    run.root = mkdtemp(pattern.data());
    std::filesystem::create_directories(run.log_folder(1));
  }
  void TearDown() override { std::filesystem::remove_all(run.root); }

  RunDirectory run;
};

}  // namespace smlp::test
