#include "tests/fuzz/inputs.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "tests/fuzz/targets.h"

namespace smlp::fuzz {

namespace fs = std::filesystem;

namespace {
constexpr char apart = '\x1e';
}

void must(bool holds, const char* promise) {
  if (holds) return;
  std::fprintf(stderr, "this does not hold: %s\n", promise);
  std::abort();
}

const fs::path& folder() {
  struct Folder {
    fs::path path = fs::path(fs::is_directory("/dev/shm") ? "/dev/shm" : "/tmp") / ("smlp-fuzz-" + std::to_string(getpid()));
    Folder() { fs::create_directories(path); }
    ~Folder() {
      std::error_code ignored;
      fs::remove_all(path, ignored);
    }
  };
  static const Folder one;
  return one.path;
}

fs::path put(const fs::path& file, std::string_view bytes) {
  fs::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return file;
}

std::vector<std::string> parts_of(std::string_view bytes) {
  std::vector<std::string> parts(1);
  for (const char c : bytes) {
    if (c == apart) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string bytes;
  for (std::size_t i = 0; i < parts.size(); ++i) bytes += (i == 0 ? "" : std::string(1, apart)) + parts[i];
  return bytes;
}

std::string part(const std::vector<std::string>& parts, std::size_t i) { return i < parts.size() ? parts[i] : ""; }

const std::vector<Target>& all_targets() {
  static const std::vector<Target> all = [] {
    std::vector<Target> list;
    for (const auto& some : {text_targets(), job_targets(), checkpoint_targets(), run_targets()})
      list.insert(list.end(), some.begin(), some.end());
    return list;
  }();
  return all;
}

}  // namespace smlp::fuzz
