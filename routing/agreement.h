// How alike two plans are: training assigns tokens in balance, evaluation as each token likes it best, and what a model
// learned with the one may be judged with the other.
#pragma once

#include <cstdint>

#include "routing/router.h"

namespace smlp {

// Of `rows` tokens, those that both plans send to the same experts: none at all is the same as none. Waits.
std::int64_t tokens_sent_alike(Backend& backend, const RoutePlan& a, const RoutePlan& b, std::int64_t rows);

}  // namespace smlp
