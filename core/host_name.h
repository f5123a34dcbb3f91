// What this machine calls itself: heartbeats, locks and records name it, so all must say the same. SLURM may
// have another name for it ("n1" for n1.cluster.local): where it is looked for among an allocation's nodes, that one counts.
#pragma once

#include <string>

namespace smlp {

std::string host_name();  // of this machine, as its kernel has it
std::string node_name();  // as SLURM calls it, for what SLURM started; else the same

}  // namespace smlp
