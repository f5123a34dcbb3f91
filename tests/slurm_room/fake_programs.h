// A folder of stand-ins for SLURM's programs, alone on PATH before the system's: shell scripts that record how they
// were called and say what a test tells them to.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "variables.h"

namespace smlp::test {

inline std::string file_contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

class FakePrograms {
 public:
  FakePrograms() {
    std::string pattern = testing::TempDir() + "smlp-slurm-XXXXXX";
    place = mkdtemp(pattern.data());
    std::filesystem::create_directory(place / "bin");
    variables.set("PATH", (place / "bin").string() + ":" + std::getenv("PATH"));
    variables.set("FAKE_CALLS", (place / "calls").string());
  }
  ~FakePrograms() {
    std::error_code ignored;
    std::filesystem::remove_all(place, ignored);
  }
  // `body` runs after the call was recorded: each argument on a line of its own.
  void program(const std::string& name, const std::string& body) const {
    const auto file = place / "bin" / name;
    std::ofstream(file) << "#!/bin/bash\nprintf '%s\\n' \"" << name << "\" \"$@\" '' >> \"$FAKE_CALLS\"\n" << body << "\n";
    std::filesystem::permissions(file, std::filesystem::perms::owner_all);
  }
  // One that prints `text` as it stands.
  void says(const std::string& name, const std::string& text, int code = 0, bool to_stderr = false) const {
    std::ofstream(place / (name + ".text")) << text;
    program(name, "cat '" + (place / (name + ".text")).string() + "'" + (to_stderr ? " >&2" : "") + "; exit " +
                      std::to_string(code));
  }
  std::vector<std::string> calls() const {  // words of a call joined by '|'
    std::vector<std::string> all;
    std::string call;
    std::istringstream lines(file_contents(place / "calls"));
    for (std::string line; std::getline(lines, line);) {
      if (!line.empty()) {
        call += (call.empty() ? "" : "|") + line;
      } else {
        all.push_back(std::exchange(call, ""));
      }
    }
    return all;
  }

  std::filesystem::path place;
  Variables variables;
};

}  // namespace smlp::test
