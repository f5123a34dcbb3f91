// The router that a job asks for.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "routing/softmax_router.h"

namespace smlp {

struct RouterSettings {
  std::string tokens = "balanced";  // "balanced", "switch", "gshard", "hash"
  SoftmaxSettings softmax{};        // switch and gshard; make_router() sets choices and layers
  std::vector<std::int32_t> hash_table{};  // hash: expert of each id; empty where a checkpoint brings it
};

struct RouterSizes {
  std::int64_t experts = 1, width = 1, vocabulary = 1;
  std::int64_t layers = 1;  // routers of the model
};

// Whether routers of this kind have auxiliary losses.
bool has_auxiliary_loss(const RouterSettings& settings);

// Tensors are named "<layer>.centroids", "<layer>.router.weight", "<layer>.table".
// Throws Error(configuration) for a kind that it does not know.
std::unique_ptr<Router> make_router(const RouterSettings& settings, ParameterStore& store, const std::string& layer,
                                    const RouterSizes& sizes);

}  // namespace smlp
