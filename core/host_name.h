// What this machine calls itself: heartbeats, locks and records name it, so all must say the same.
#pragma once

#include <string>

namespace smlp {

std::string host_name();  // of this machine, as its kernel has it

}  // namespace smlp
