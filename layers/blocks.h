// Makes the blocks of a stack by their kind: "gmlp", "smlp", "transformer", ….
#pragma once

#include <memory>
#include <string>

#include "layers/exchange.h"
#include "layers/model.h"

namespace smlp {

// Block `index` of the stack, its parameters named "blocks.<index>.…".
std::unique_ptr<Layer> make_block(const ModelConfig& config, ParameterStore& store, ExpertExchange& exchange,
                                  const std::string& kind, std::int64_t index);

}  // namespace smlp
