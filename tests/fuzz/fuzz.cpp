// One target under libFuzzer: SMLP_TARGET is its name.
#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "tests/fuzz/inputs.h"
#include "tests/fuzz/targets.h"

namespace {

const smlp::fuzz::Target& target() {
  for (const auto& one : smlp::fuzz::all_targets()) {
    if (one.name == std::string_view(SMLP_TARGET)) return one;
  }
  smlp::fuzz::must(false, "there is a target " SMLP_TARGET);
  return smlp::fuzz::all_targets().front();
}

}  // namespace

// The seeds become inputs of the corpus folder, where one is named.
extern "C" int LLVMFuzzerInitialize(int* count, char*** words) {
  for (int i = 1; i < *count; ++i) {
    const std::filesystem::path corpus = (*words)[i];
    if (!std::filesystem::is_directory(corpus)) continue;
    int number = 0;
    for (const auto& seed : target().seeds) smlp::fuzz::put(corpus / ("seed-" + std::to_string(++number)), seed);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t count) {
  static const auto& one = target();
  smlp::fuzz::in_sentences([&] { one.run({reinterpret_cast<const char*>(bytes), count}); });
  return 0;
}
