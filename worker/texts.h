// Texts between ranks.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"

namespace smlp {

std::string broadcast_text(Communicator& world, const std::string& mine);               // rank 0's, on every rank
std::vector<std::string> gather_texts(Communicator& world, const std::string& mine);    // on rank 0; empty elsewhere
// Of the first rank that has something to say, on every rank.
std::string first_text(Communicator& world, const std::string& mine);
std::vector<std::string> all_texts(Communicator& world, const std::string& mine);       // by rank, on every rank

}  // namespace smlp
