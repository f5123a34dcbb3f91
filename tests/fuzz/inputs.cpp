#include "tests/fuzz/inputs.h"

#include <cstdio>
#include <cstdlib>

#include "tests/data/scratch.h"
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
  static const test::Scratch one;
  return one.root();
}

fs::path put(const fs::path& file, std::string_view bytes) {
  test::write_file(file, std::string(bytes));
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
