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

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t count) {
  static const auto& one = target();
  static const bool seeded = [] {
    for (const auto& seed : one.seeds) one.run(seed);
    return true;
  }();
  (void)seeded;
  smlp::fuzz::in_sentences([&] { one.run({reinterpret_cast<const char*>(bytes), count}); });
  return 0;
}
