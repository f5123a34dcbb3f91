#include "worker/not_finite.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "core/host_name.h"
#include "worker/texts.h"

namespace smlp {

std::string name_not_finite(Communicator& world, const OwnFinite& mine) {
  const auto* what = !mine.loss ? "loss " : !mine.gradient ? "gradient " : "";
  const auto all = all_texts(world, what + host_name());
  for (const std::string kind : {"loss ", "gradient "}) {
    std::vector<std::string> ranks;
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      if (all[rank].starts_with(kind)) ranks.push_back(fmt::format("{} ({})", rank, all[rank].substr(kind.size())));
    }
    if (ranks.empty()) continue;
    if (ranks.size() == all.size() && ranks.size() > 1) return fmt::format("with the {}of all ranks", kind);
    return fmt::format("with the {}of rank{} {}", kind, ranks.size() > 1 ? "s" : "", fmt::join(ranks, ", "));
  }
  return "though each rank's own are";
}

}  // namespace smlp
