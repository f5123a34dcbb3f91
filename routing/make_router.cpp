#include "routing/make_router.h"

#include <fmt/format.h>

#include "core/error.h"
#include "routing/balanced_router.h"
#include "routing/hash_router.h"

namespace smlp {

bool has_auxiliary_loss(const RouterSettings& settings) {
  return settings.tokens == "switch" || settings.tokens == "gshard";
}

std::unique_ptr<Router> make_router(const RouterSettings& settings, ParameterStore& store, const std::string& layer,
                                    const RouterSizes& sizes) {
  const auto& kind = settings.tokens;
  if (kind == "balanced") return std::make_unique<BalancedRouter>(store, layer + ".centroids", sizes.experts, sizes.width);
  if (kind == "hash") {
    return std::make_unique<HashRouter>(store, layer + ".table", sizes.experts, sizes.vocabulary, settings.hash_table);
  }
  if (has_auxiliary_loss(settings)) {
    SoftmaxSettings softmax = settings.softmax;
    softmax.choices = kind == "gshard" ? 2 : 1;
    softmax.layers = sizes.layers;
    return std::make_unique<SoftmaxRouter>(store, layer + ".router", sizes.experts, sizes.width, softmax);
  }
  throw Error(ExitCode::configuration,
              fmt::format("routing.tokens = \"{}\" is no way of routing tokens that this build knows (balanced, switch, "
                          "gshard, hash)",
                          kind));
}

}  // namespace smlp
